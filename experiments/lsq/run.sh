#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# CIFAR-10, ResNet-20, first and last layer at 8 bits.
for bits in 2 3 4 8; do
  python -m qjax.train -m +experiment=lsq_w4a4 data=cifar10 model=resnet20 \
    recipe=ends_8bit "w_bits=$bits" "a_bits=$bits" "seed=$seeds" "$@"
done
