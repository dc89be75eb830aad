#!/usr/bin/env bash
# Builds ./quartet, with the CUDA backend where the toolkit is found, and says which build it made.
#
#   scripts/build.sh [auto|cpu|cuda] [OUTPUT]     cuda: it is an error when the toolkit is missing
#
# QUARTET_GPUS lists the compute capabilities to compile for ("80 90a"); without, those of this machine's GPUs, or all.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-auto} output=${2:-quartet}

if [ "$kind" = auto ]; then
	kind=cpu
	if command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then kind=cuda; fi
fi
case $kind in
cpu)
	CGO_ENABLED=0 go build -trimpath -o "$output" .
	echo "built $output for the CPU alone; where nvcc is found, it runs on NVIDIA GPUs too"
	;;
cuda)
	settings=$(kernels/cuda/build.sh ${QUARTET_GPUS:+"$QUARTET_GPUS"})
	eval "$settings"
	go build -trimpath -tags cuda -o "$output" .
	echo "built $output with CUDA kernels for compute capability $(cat kernels/cuda/build/architectures)"
	;;
*)
	echo "usage: scripts/build.sh [auto|cpu|cuda] [OUTPUT]" >&2
	exit 2
	;;
esac
