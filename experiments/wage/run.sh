#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# MNIST, LeNet, 2-8-8-8: Table 1.
python -m qjax.train -m +experiment=wage_2888 data=mnist model=wage_lenet "seed=$seeds" "$@"

# CIFAR-10, VGG-like, 2-8-8-8: Table 1.
python -m qjax.train -m +experiment=wage_2888 data=cifar10 model=wage_vgg "seed=$seeds" "$@"
