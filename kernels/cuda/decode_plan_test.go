package cuda

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"quartet/kernels"
)

// decoding is a model of phi-2's shape with linears of a type on a recorder. Its layers are one layer's tensors again and again.
func decoding(t *testing.T, gpu Info, d kernels.DType, layers int) (*recorder, kernels.Decode, *decode) {
	t.Helper()
	r := newRecorder(t, gpu, true)
	x := &bench{T: t, b: newBackend(r, kernels.F16), r: r, act: kernels.F16}
	const D, F, V, positions = 2560, 10240, 51200, 2048
	linear := func(d kernels.DType, rows, cols int) kernels.DecodeLinear {
		l := kernels.DecodeLinear{Bias: x.vector(kernels.F16, rows)}
		if d == kernels.NF4 {
			l.Weight = x.nf4(rows, cols, true)
		} else {
			l.Weight = x.tensor(d, rows, cols)
		}
		return l
	}
	m := kernels.DecodeModel{Heads: phi, Eps: 1e-5, Embed: x.tensor(kernels.F16, V, D), NormWeight: x.vector(kernels.F16, D), NormBias: x.vector(kernels.F16, D),
		Head: linear(kernels.F16, V, D), Rotary: x.tensor(kernels.F32, positions, phi.Rotary)}
	l := kernels.DecodeLayer{NormWeight: m.NormWeight, NormBias: m.NormBias, Q: linear(d, D, D), K: linear(d, D, D), V: linear(d, D, D),
		Dense: linear(d, D, D), FC1: linear(d, F, D), FC2: linear(d, D, F), Keys: x.tensor(kernels.F16, positions, D), Values: x.tensor(kernels.F16, positions, D)}
	for range layers {
		m.Layers = append(m.Layers, l)
	}
	step, err := x.b.NewDecode(m)
	if err != nil {
		t.Fatal(err)
	}
	r.queued = nil
	plan, _ := step.(*decode)
	return r, step, plan
}

// TestDecodePlans requires one launch of all processors for up to sixteen tokens, with the slots that shared memory has room for.
func TestDecodePlans(t *testing.T) {
	for _, c := range []struct {
		gpu    Info
		d      kernels.DType
		kernel string // "" for none
	}{
		{gpus[0], kernels.F16, "decode_float_10"}, {gpus[0], kernels.BF16, "decode_float_10"}, {gpus[0], kernels.NF4, "decode_nf4_6"},
		{gpus[1], kernels.F16, "decode_float_5"}, {gpus[1], kernels.NF4, "decode_nf4_2"},
		{gpus[2], kernels.F16, "decode_float_2"}, {gpus[2], kernels.NF4, ""},
	} {
		t.Run(fmt.Sprint(c.gpu.Name, c.d), func(t *testing.T) {
			r, step, plan := decoding(t, c.gpu, c.d, 32)
			if plan == nil {
				if c.kernel != "" || step != nil {
					t.Fatal("there is no plan")
				}
				return
			}
			for _, tokens := range []int{1, greedyAhead, greedyAhead + 3} {
				r.queued = nil
				if err := plan.Greedy(make([]int32, tokens), 1, 0, 32); err != nil {
					t.Fatal(err)
				}
				if len(r.queued) != ceil(tokens, greedyAhead) {
					t.Fatalf("%d launches", len(r.queued))
				}
				last := uint64((tokens-1)%greedyAhead + 1)
				if l := r.queued[len(r.queued)-1]; l.kernel != c.kernel || l.grid != [3]int{c.gpu.Processors, 1, 1} || !l.together || l.args[3] != last {
					t.Errorf("the launch for %d tokens is %+v", tokens, l)
				}
			}
			plan.Free()
		})
	}
}

// TestDecodeShares requires the blocks to have all rows between them, no block more than its shared memory was made for, and attention's
// blocks fewer rows than the others.
func TestDecodeShares(t *testing.T) {
	for _, blocks := range []int{1, 7, 24, 108, 132} {
		for _, rows := range []int{4, 160, 2560, 10240, 51200} {
			for _, attention := range []int{0, 1, blocks / 4} {
				w := kernels.DecodeLinear{Weight: kernels.Tensor{DType: kernels.F16, Rows: rows, Cols: 2560}}
				s := stream([]kernels.DecodeLinear{w}, kernels.DecodeLinear{}, attention, blocks)
				at, most, busiest := int32(0), int32(0), int32(0)
				for b := range int32(blocks) {
					from, to := shareBefore(s, b), shareBefore(s, b+1)
					if to > s.Shares {
						continue
					}
					if first := s.Ends[2] * from / s.Shares; first != at {
						t.Fatalf("%d rows on %d blocks, %d with attention: block %d begins at %d, not %d", rows, blocks, attention, b, first, at)
					}
					chunks := s.Ends[2]*to/s.Shares - at
					if at += chunks; b < s.AttentionBlocks {
						busiest = max(busiest, chunks)
					} else {
						most = max(most, chunks)
					}
				}
				if at != s.Ends[2] || max(most, busiest) > int32(s.most()) || most > 0 && busiest > most {
					t.Errorf("%d rows on %d blocks, %d with attention: up to %d, a block has %d or %d, room is for %d", rows, blocks, attention, at, most, busiest, s.most())
				}
			}
		}
	}
}

// shareBefore is share_before of decode_stream.cuh.
func shareBefore(s planStream, block int32) int32 {
	if block < s.AttentionBlocks {
		return block
	}
	return s.AttentionBlocks + planWhole*(block-s.AttentionBlocks)
}

// TestDecodeConstants holds the plan's constants against the kernel's.
func TestDecodeConstants(t *testing.T) {
	for file, all := range map[string]map[string]int{
		"decode_stream.cuh":    {"THREADS": planThreads, "SEGMENT": planSegment, "SLOT": planSlot, "WHOLE": planWhole, "TASKS": planAsked / 8 / planThreads, "STRIDE": 9},
		"decode_attention.cuh": {"TEAM": 16},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range all {
			m := regexp.MustCompile(`constexpr int (?:[^;]*, )?` + name + ` = (\d+)`).FindSubmatch(text)
			if m == nil {
				t.Errorf("%s has no %s", file, name)
			} else if got, _ := strconv.Atoi(string(m[1])); got != want {
				t.Errorf("%s: %s is %d, and %d in the plan", file, name, got, want)
			}
		}
	}
	if n := len(planBytes(planPhase{})); n%8 != 0 || n > 4*planThreads {
		t.Errorf("a phase is %d bytes: a thread brings four", n)
	}
	if n := len(planBytes(planStream{})); n%8 != 0 {
		t.Errorf("a stream is %d bytes, which are not aligned", n)
	}
}
