#!/usr/bin/env bash
# Compiles the kernels and the stand-in for libcuda into kernels/cuda/build, which the build tag cuda needs.
#
#   kernels/cuda/build.sh [ARCHITECTURES]     e.g. "90a"; without: those of the GPUs of this machine, or all where it has none
#
# Prints the settings under which `go build -tags cuda` works, as lines for a shell.
set -euo pipefail
cd "$(dirname "$0")"
all="80 86 89 90a 100 120"

nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" /usr/local/cuda/bin/nvcc 2>/dev/null | head -1) ||
	{ echo "nvcc is not found: install the CUDA toolkit or set CUDA_HOME" >&2; exit 1; }
toolkit=$(cd "$(dirname "$(readlink -f "$nvcc")")/.." && pwd)
include=$toolkit/include
[ -e "$include/cuda.h" ] || include=$(ls -d "$toolkit"/targets/*/include | head -1)

archs=${1:-$({ nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null || true; } | tr -d . | sed 's/^90$/90a/' | sort -u | tr '\n' ' ')}
[ -n "${archs// /}" ] || archs=$all
targets=() last=
for a in $archs; do
	targets+=("-gencode=arch=compute_$a,code=sm_$a") last=$a
done
[ "$archs" != "$all" ] || targets+=("-gencode=arch=compute_$last,code=compute_$last") # PTX for what comes after

mkdir -p build
[ "$(cat build/architectures 2>/dev/null)" = "$archs" ] || rm -f build/*.fatbin
echo "$archs" > build/architectures
compile() {
	"$nvcc" -O3 -std=c++17 -fatbin "${targets[@]}" -I "$include" -o "build/$1.fatbin.new" "$1.cu" && mv "build/$1.fatbin.new" "build/$1.fatbin"
}
waiting=0 failed=0
for source in *.cu; do
	name=${source%.cu}
	if [ -z "$(find "$source" ./*.cuh -newer "build/$name.fatbin" 2>/dev/null)" ] && [ -e "build/$name.fatbin" ]; then continue; fi
	if [ "$waiting" -ge "$(nproc)" ]; then wait -n || failed=1; waiting=$((waiting - 1)); fi
	compile "$name" &
	waiting=$((waiting + 1))
done
while [ "$waiting" -gt 0 ]; do wait -n || failed=1; waiting=$((waiting - 1)); done
for f in build/*.fatbin; do [ -e "$(basename "$f" .fatbin).cu" ] || rm -f "$f"; done
[ "$failed" = 0 ] || { echo "some kernels do not compile" >&2; exit 1; }

if [ ! -e build/libcuda.a ] || [ -n "$(find libcuda -newer build/libcuda.a)" ]; then
	"${CC:-cc}" -O2 -fPIC -c libcuda/libcuda.c -o build/libcuda.o
	rm -f build/libcuda.a
	ar rcs build/libcuda.a build/libcuda.o
fi
cat <<END
export CGO_ENABLED=1
export CGO_CFLAGS="-O2 -I$PWD/include -idirafter $include"
export CGO_LDFLAGS="-L$PWD/build"
END
