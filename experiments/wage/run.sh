#!/usr/bin/env bash
# Arguments are passed on to every command, e.g. hydra/launcher=joblib or seed=0.
set -eu

# MNIST, LeNet, 2-8-8-8: Table 1.
python -m qjax.train -m +experiment=wage_w2a8 data=mnist model=wage_lenet seed=0,1,2 "$@"

# CIFAR-10, VGG-like, 2-8-8-8: Table 1.
python -m qjax.train -m +experiment=wage_w2a8 data=cifar10 model=wage_vgg seed=0,1,2 "$@"
