#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# Min-max ranges at 8 and 4 bits, CIFAR-10, ResNet-20.
python -m qjax.train -m +experiment=minmax_w8a8 data=cifar10 model=resnet20 \
  w_bits=4,8 a_bits=4,8 "seed=$seeds" "$@"
