#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# The paper's schedule: 200 epochs, a tenth of the rate at 60 and 120.
schedule=(epochs=200 batch_size=128 optim=sgd_step optim.weight_decay=2e-4
  optim.schedule.unit=epochs "optim.schedule.boundaries=[60,120]")

# The float baseline.
python -m qjax.train -m +experiment=float data=cifar10 model=resnet20 \
  "${schedule[@]}" "seed=$seeds" "$@"

# CIFAR-10, ResNet-20: Table 1 (first and last layer in float), for PACT and for DoReFa, whose fixed clip
# does not bear the residual sums (experiments/dorefa).
for bits in 2 3 4 5; do
  python -m qjax.train -m +experiment=pact_w4a4 data=cifar10 model=resnet20 \
    recipe=ends_float "w_bits=$bits" "a_bits=$bits" "${schedule[@]}" "seed=$seeds" "$@"
  python -m qjax.train -m +experiment=dorefa_w4a4 data=cifar10 model=resnet20 \
    recipe=conv_inputs "w_bits=$bits" "a_bits=$bits" "${schedule[@]}" "seed=$seeds" "$@"
done

# Table 2: the same body with the first and last layer at 8 bits.
for bits in 2 3 4 5; do
  python -m qjax.train -m +experiment=pact_w4a4 data=cifar10 model=resnet20 \
    recipe=ends_8bit "w_bits=$bits" "a_bits=$bits" "${schedule[@]}" "seed=$seeds" "$@"
done
