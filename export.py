"""Exports a run's encoder: python export.py runs/simclr_cifar10 resnet18.pth --layout timm"""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports leaves no trace
    from jaxcl.programs.export import main

    main()
