"""Exports a run's encoder: python export.py runs/simclr_cifar10 resnet18.pth --layout timm"""

from jaxcl.programs.export import main

if __name__ == "__main__":
    main()
