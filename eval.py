"""Evaluates a run and writes its report: python eval.py runs/simclr_cifar10"""

from jaxcl.programs.evaluate import main

if __name__ == "__main__":
    main()
