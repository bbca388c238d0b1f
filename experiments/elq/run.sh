#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# Binary and ternary weights, float activations, CIFAR-10, ResNet-20.
python -m qjax.train -m +experiment=elq_w2a32 data=cifar10 model=resnet20 \
  recipe=ends_float w_bits=1,2 "seed=$seeds" "$@"

# The same on the embedded digits, and all weights at once for as many epochs: what the parts are worth.
python -m qjax.train -m +experiment=elq_w2a32 w_bits=1,2 "seed=$seeds" "$@"
python -m qjax.train -m +experiment=elq_w2a32 procedure=finetune method=elq_at_once w_bits=1,2 "seed=$seeds" "$@"
