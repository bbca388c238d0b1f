#!/usr/bin/env bash
# Arguments are passed on to every command, e.g. hydra/launcher=joblib or seed=0.
set -eu

# Binary and ternary weights, float activations, CIFAR-10, ResNet-20.
python -m qjax.train -m +experiment=elq_w2a32 data=cifar10 model=resnet20 \
  recipe=ends_float w_bits=1,2 seed=0,1,2 "$@"
