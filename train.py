"""Trains an experiment: python train.py configs/simclr_cifar10.py --method.temperature 0.2"""

from jaxcl.programs.train import main

if __name__ == "__main__":
    main()
