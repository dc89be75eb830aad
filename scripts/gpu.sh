#!/usr/bin/env bash
# What is claimed of the CUDA backend, checked and measured on a machine with an NVIDIA GPU:
#
#   scripts/gpu.sh build DIR    compile into DIR, where Go and nvcc are; QUARTET_GPUS="90a" for one kind of GPU alone
#   scripts/gpu.sh check DIR    conformance, golden data with fp32 and fp16 activations, memcheck and racecheck where there is compute-sanitizer (minutes)
#   scripts/gpu.sh speed DIR    a random phi-2 in the Python stack and in this program, 12 GB into DIR, and one table of both
#
# check and speed need no Go; speed needs Python with torch, transformers and peft.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$2"
dir=$(cd "$2" && pwd)
step() { printf '\n== %s\n' "$*"; }

case $1 in
build)
	scripts/build.sh cuda "$dir/quartet"
	eval "$(kernels/cuda/build.sh "$(cat kernels/cuda/build/architectures)")"
	go test -trimpath -tags cuda -c -o "$dir/cuda.test" ./kernels/cuda
	;;
check)
	failed=0
	step conformance
	(cd kernels/cuda && "$dir/cuda.test") || failed=1
	for act in float32 float16; do
		step "golden data, $act activations"
		QUARTET_CUDA=$act "$dir/quartet" golden --device cuda testdata/golden || failed=1
	done
	if command -v compute-sanitizer >/dev/null; then
		for tool in memcheck racecheck; do
			step $tool
			(cd kernels/cuda && timeout 900 compute-sanitizer --tool $tool --report-api-errors no --error-exitcode 9 --print-limit 20 "$dir/cuda.test" -test.run 'Conformance/float16|Decode') | tail -30 || failed=1
		done
	fi
	exit $failed
	;;
speed)
	step "the Python stack"
	python3 scripts/gpu_reference.py "$dir" | tee "$dir/python.jsonl"
	step "logits beside transformers'"
	"$dir/quartet" golden --device cuda "$dir/golden" | grep -v missing || true
	step "this program"
	TMPDIR=$dir "$dir/quartet" bench --json "$dir/phi2" > "$dir/quartet.json"
	python3 - "$dir" <<'END'
import json, sys
ours = json.load(open(f"{sys.argv[1]}/quartet.json"))
theirs = {r["name"]: r for r in map(json.loads, open(f"{sys.argv[1]}/python.jsonl"))}
m = ours["machine"]
print(f"{m.get('gpu')}: copies at {m['read_bytes_per_second'] / 1e9:.0f} GB/s, multiplies at {m['product_flops'] / 1e12:.0f} TFLOP/s")
print(f"{'':18}{'tok/s':>10}{'of floor':>10}{'memory':>9}{'Python':>10}{'memory':>9}{'ratio':>7}")
for r in ours["rows"]:
    t = theirs.get(r["name"], {})
    gb = lambda x: f"{x.get('device_memory_bytes', 0) / 1e9:8.2f}G"
    rate = t.get("tokens_per_second", 0)
    print(f"{r['name']:18}{r['tokens_per_second']:10.0f}{100 * r['share']:9.0f}%{gb(r)}{rate:10.0f}{gb(t)}" + (f"{r['tokens_per_second'] / rate:7.1f}" if rate else ""))
END
	;;
*)
	sed -n '2,9s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac
