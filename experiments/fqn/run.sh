#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# Every layer at 4 bits, CIFAR-10, ResNet-20: folded and frozen against live batch normalisation.
for experiment in fqn_w4a4 fqn_w4a4_live_bn; do
  python -m qjax.train -m "+experiment=$experiment" data=cifar10 model=resnet20 "seed=$seeds" "$@"
done

# Small batches, as a detector has them: where live statistics hurt.
for experiment in fqn_w4a4 fqn_w4a4_live_bn; do
  method=fqn${experiment#fqn_w4a4}_batch4
  python -m qjax.train -m "+experiment=$experiment" "method=$method" batch_size=4 optim.learning_rate=0.01 \
    "seed=$seeds" "$@"
done
