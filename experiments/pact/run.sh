#!/usr/bin/env bash
# Arguments are passed on to every command, e.g. hydra/launcher=joblib or seed=0.
set -eu

# CIFAR-10, ResNet-20: Table 1 (first and last layer in float), for PACT and for DoReFa.
for bits in 2 3 4 5; do
  for experiment in pact_w4a4 dorefa_w4a4; do
    python -m qjax.train -m "+experiment=$experiment" data=cifar10 model=resnet20 \
      recipe=ends_float "w_bits=$bits" "a_bits=$bits" seed=0,1,2 "$@"
  done
done

# Table 2: the same body with the first and last layer at 8 bits.
for bits in 2 3 4 5; do
  python -m qjax.train -m +experiment=pact_w4a4 data=cifar10 model=resnet20 \
    recipe=ends_8bit "w_bits=$bits" "a_bits=$bits" seed=0,1,2 "$@"
done
