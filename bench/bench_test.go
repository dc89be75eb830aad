package bench

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
)

// brief measures each row once, over buffers of no use.
var brief = limits{runs: 1, most: time.Minute, buffer: 1 << 16, bursts: 2}

func quiet() Hooks {
	return Hooks{Note: func(string) {}, Progress: func(string, int64, int64, string) {}}
}

func names(rows []Row) []string {
	var all []string
	for _, r := range rows {
		all = append(all, r.Name)
	}
	return all
}

// emptyTemp makes the folder for temporary files one of the test's own and, when the test ends, checks that it is empty.
func emptyTemp(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v (%v)", dir, left, err)
		}
	})
}

func TestReport(t *testing.T) {
	emptyTemp(t)
	var labels []string
	h := quiet()
	h.Progress = func(label string, _, _ int64, _ string) { labels = append(labels, label) }
	r, err := run(t.Context(), cpu.New(), Options{Random: "tiny"}, h, brief)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		Machine map[string]any   `json:"machine"`
		Rows    []map[string]any `json:"rows"`
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"device", "threads", "cores", "go", "read_bytes_per_second", "product_flops", "flops_from"} {
		if _, ok := read.Machine[key]; !ok {
			t.Errorf("the machine lacks %s: %s", key, text)
		}
	}
	want := []string{"decode_fp16", "decode_nf4", "prefill64_fp16", "prefill64_nf4", "prefill512_fp16", "prefill512_nf4", "lora_step", "qlora_step"}
	if got := names(r.Rows); !slices.Equal(got, want) {
		t.Fatalf("rows %v, want %v", got, want)
	}
	for _, row := range read.Rows {
		for _, key := range []string{"tokens_per_second", "floor_tokens_per_second", "share", "runs"} {
			if v, ok := row[key].(float64); !ok || v <= 0 {
				t.Errorf("%v: %s is %v", row["name"], key, row[key])
			}
		}
		if spread, ok := row["spread"].([]any); !ok || len(spread) != 2 || spread[0].(float64) > spread[1].(float64) {
			t.Errorf("%v: spread %v", row["name"], row["spread"])
		}
		if share := row["tokens_per_second"].(float64) / row["floor_tokens_per_second"].(float64); math.Abs(share/row["share"].(float64)-1) > 1e-9 {
			t.Errorf("%v: share %v, want %v", row["name"], row["share"], share)
		}
	}
	if r.Rows[1].WeightsBytes >= r.Rows[0].WeightsBytes || r.Rows[1].BytesPerToken >= r.Rows[0].BytesPerToken {
		t.Errorf("NF4 is no smaller: %+v and %+v", r.Rows[1], r.Rows[0])
	}
	shown := r.Text()
	for _, name := range append(want, r.Machine.Go) {
		if !strings.Contains(shown, name) {
			t.Errorf("%s is not in\n%s", name, shown)
		}
		if name != r.Machine.Go && !slices.Contains(labels, name) {
			t.Errorf("no progress of %s among %q", name, labels)
		}
	}
}

func TestFolders(t *testing.T) {
	emptyTemp(t)
	b, dir := cpu.New(), t.TempDir()
	wide, narrow := filepath.Join(dir, "wide"), filepath.Join(dir, "narrow")
	if err := modeltest.Write(wide, modeltest.Shape{DType: "BF16", Positions: 100}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(narrow, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := model.Quantize(b, wide, narrow, model.QuantizeOptions{DoubleQuant: true, ComputeDType: "bfloat16"}, nil); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]string{
		wide:   "decode_bf16 decode_nf4 prefill64_bf16 prefill64_nf4 lora_step qlora_step; without prefill512_bf16 prefill512_nf4",
		narrow: "decode_nf4 prefill64_nf4 qlora_step; without decode_fp16 prefill64_fp16 prefill512_fp16 lora_step prefill512_nf4",
	} {
		r, err := run(t.Context(), b, Options{Folder: folder}, quiet(), brief)
		if err != nil {
			t.Errorf("%s: %v", folder, err)
			continue
		}
		got := strings.Join(names(r.Rows), " ") + "; without"
		for _, l := range r.LeftOut {
			got += " " + l.Name
			if l.Reason == "" || !strings.Contains(r.Text(), l.Reason) {
				t.Errorf("%s: the reason %q is not shown", l.Name, l.Reason)
			}
		}
		if got != want {
			t.Errorf("%s:\n%s, want\n%s", folder, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	emptyTemp(t)
	b := cpu.New()
	if _, err := run(t.Context(), b, Options{Random: "huge"}, quiet(), brief); err == nil || err.Error() != `no random shape "huge"; there are phi-2, tiny` {
		t.Error(err)
	}
	if _, err := run(t.Context(), b, Options{Folder: t.TempDir()}, quiet(), brief); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Error(err)
	}
	if err := room(os.TempDir(), 1<<60); err == nil || !strings.Contains(err.Error(), "set TMPDIR to a folder with more") {
		t.Error(err)
	}
}

// A benchmark that is stopped, in whatever it does, leaves nothing behind.
func TestStopped(t *testing.T) {
	for _, at := range []string{"random tiny", "quantise to NF4", "decode_fp16", "prefill512_fp16", "qlora_step"} {
		t.Run(at, func(t *testing.T) {
			emptyTemp(t)
			ctx, cancel := context.WithCancel(t.Context())
			h := quiet()
			h.Progress = func(label string, _, _ int64, _ string) {
				if label == at {
					cancel()
				}
			}
			if r, err := run(ctx, cpu.New(), Options{Random: "tiny"}, h, brief); err == nil {
				t.Errorf("it went on: %+v", r)
			} else if ctx.Err() == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
				t.Error(err)
			}
		})
	}
}

func TestEnough(t *testing.T) {
	l := limits{runs: 3, least: time.Second, most: 4 * time.Second}
	for _, c := range []struct {
		seconds []float64
		want    bool
	}{
		{nil, false}, {[]float64{5}, true}, {[]float64{1, 1}, false}, {[]float64{0.4, 0.4, 0.4}, true}, {[]float64{0.1, 0.1, 0.1}, false},
	} {
		if got := l.enough(c.seconds); got != c.want {
			t.Errorf("%v: %v", c.seconds, got)
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   [3]float64 // of 0, 1/4, 1/2
	}{
		{[]float64{3}, [3]float64{3, 3, 3}},
		{[]float64{4, 2}, [3]float64{2, 2.5, 3}},
		{[]float64{5, 1, 3, 2, 4}, [3]float64{1, 2, 3}},
	} {
		for i, share := range []float64{0, 0.25, 0.5} {
			if got := quantile(c.values, share); got != c.want[i] {
				t.Errorf("%v of %v: %v, want %v", share, c.values, got, c.want[i])
			}
		}
	}
}

func TestRandomModel(t *testing.T) {
	dir := t.TempDir()
	var last, total int64
	if err := writeRandom(t.Context(), dir, "tiny", func(done, of int64) { last, total = done, of }); err != nil {
		t.Fatal(err)
	}
	w, err := model.Load(cpu.New(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if last != total || w.Bytes() != total {
		t.Errorf("told %d of %d bytes, written %d", last, total, w.Bytes())
	}
	values := w.Layers[3].Linears[model.FC1].Weight.F16s()
	var sum, squares float64
	distinct := map[uint16]bool{}
	for _, bits := range values {
		v := float64(kernels.F16ToF32(bits))
		sum, squares = sum+v, squares+v*v
		distinct[bits] = true
	}
	n, variance := float64(len(values)), 1.0/160
	if mean := sum / n; math.Abs(mean) > 4*math.Sqrt(variance/n) {
		t.Errorf("mean %g", mean)
	}
	if got := squares / n; math.Abs(got/variance-1) > 0.05 || len(distinct) < 3000 {
		t.Errorf("variance %g, want %g; %d distinct weights", got, variance, len(distinct))
	}
}
