#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# Every layer at 4 bits, CIFAR-10, ResNet-20: folded and frozen against live batch normalisation.
for bn in folded-frozen separate; do
  python -m qjax.train -m +experiment=fqn_w4a4 data=cifar10 model=resnet20 \
    "bn=$bn" "seed=$seeds" "$@"
done
