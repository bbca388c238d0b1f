#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

# The schedule of the PACT paper, which re-ran DoReFa: 200 epochs, a tenth of the rate at 60 and 120.
schedule=(epochs=200 batch_size=128 optim=sgd_step optim.weight_decay=2e-4
  optim.schedule.unit=epochs "optim.schedule.boundaries=[60,120]")

# The float baseline.
python -m qjax.train -m +experiment=float data=cifar10 model=resnet20 \
  "${schedule[@]}" "seed=$seeds" "$@"

# CIFAR-10, ResNet-20, weights and activations: the re-run in Table 1 of the PACT paper.
for bits in 2 3 4 5; do
  python -m qjax.train -m +experiment=dorefa_w4a4 data=cifar10 model=resnet20 \
    recipe=conv_inputs "w_bits=$bits" "a_bits=$bits" "${schedule[@]}" "seed=$seeds" "$@"
done

# Gradients: no published figure on CIFAR-10; the abstract's widths, and the ablation.
python -m qjax.train -m +experiment=dorefa_w1a2g6 data=cifar10 model=resnet20 \
  recipe=ends_float_errors g_bits=4,6,8 "${schedule[@]}" "seed=$seeds" "$@"
python -m qjax.train -m +experiment=dorefa_w1a2g6 data=cifar10 model=resnet20 \
  recipe=ends_float_errors error=none g_bits=32 "${schedule[@]}" "seed=$seeds" "$@"

# Weights alone.
python -m qjax.train -m +experiment=dorefa_w4a4 act=none data=cifar10 model=resnet20 \
  recipe=ends_float w_bits=1,2,4 a_bits=32 "${schedule[@]}" "seed=$seeds" "$@"
