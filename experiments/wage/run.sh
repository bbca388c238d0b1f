#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# MNIST, LeNet, 2-8-8-8: Table 1.
python -m qjax.train -m +experiment=wage_2888 data=mnist model=wage_lenet "seed=$seeds" "$@"

# The paper's length, without padding as it was run; runs side by side: python experiments/run_batch.py experiments/wage/jobs.txt
python -m qjax.train -m +experiment=wage_2888 model.padding=VALID epochs=100 optim.learning_rate=1 optim.schedule.factor=1 \
  "seed=$seeds" "$@"

# CIFAR-10, VGG-like, 2-8-8-8: Table 1; and over the bits of the gradients: Table 3.
python -m qjax.train -m +experiment=wage_2888 data=cifar10 model=wage_vgg epochs=300 \
  g_bits=8,2,3,4,5,6,7,9,10,11,12 "seed=$seeds" "$@"
