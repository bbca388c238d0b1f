#!/usr/bin/env bash
# Arguments are passed on to every command, e.g. hydra/launcher=joblib or seed=0.
set -eu

# CIFAR-10, ResNet-20, weights and activations: the re-run in Table 1 of the PACT paper.
for bits in 2 3 4 5; do
  python -m qjax.train -m +experiment=dorefa_w4a4 data=cifar10 model=resnet20 \
    recipe=ends_float "w_bits=$bits" "a_bits=$bits" seed=0,1,2 "$@"
done

# Weights alone.
python -m qjax.train -m +experiment=dorefa_w4a4 data=cifar10 model=resnet20 \
  recipe=ends_float w_bits=1,2,4 a_bits=32 seed=0,1,2 "$@"
