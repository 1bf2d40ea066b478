"""Evaluates a run and writes its report: python eval.py runs/simclr_cifar10"""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports leaves no trace
    from jaxcl.programs.evaluate import main

    main()
