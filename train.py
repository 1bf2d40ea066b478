"""Trains an experiment: python train.py configs/simclr_cifar10.py --method.temperature 0.2"""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports leaves no trace
    from jaxcl.programs.train import main

    main()
