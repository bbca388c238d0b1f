#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# MNIST, LeNet-5: 40 epochs, a tenth of the rate at 15 and 25, batch 50.
mnist=(data=mnist model=lenet5 epochs=40 batch_size=50 optim=sgd_step optim.learning_rate=0.01
  optim.weight_decay=1e-4 optim.schedule.unit=epochs "optim.schedule.boundaries=[15,25]")
# CIFAR-10, VGG-small: 160 epochs, a tenth of the rate at 80 and 120, batch 100.
cifar=(data=cifar10 model=vgg_small epochs=160 batch_size=100 optim=sgd_step
  optim.weight_decay=1e-4 optim.schedule.unit=epochs "optim.schedule.boundaries=[80,120]")

python -m qjax.train -m +experiment=float "${mnist[@]}" "seed=$seeds" "$@"
python -m qjax.train -m +experiment=float "${cifar[@]}" "seed=$seeds" "$@"

# Ternary weights, float activations and ends.
python -m qjax.train -m +experiment=twn_w2a4 act=none a_bits=32 recipe=ends_float \
  "${mnist[@]}" "seed=$seeds" "$@"
python -m qjax.train -m +experiment=twn_w2a4 act=none a_bits=32 recipe=ends_float \
  "${cifar[@]}" "seed=$seeds" "$@"

# The same weights in an integer network.
python -m qjax.train -m +experiment=twn_w2a4 "${mnist[@]}" "seed=$seeds" "$@"
