package bench

import (
	"math"
	"testing"

	"quartet/kernels/cpu"
	"quartet/model"
)

// A model of two layers, small enough to count by hand.
var hand = extent{layers: 2, products: 1000, dense: 100, head: 500, bytes: 5000, row: 20, queries: 10, keyBytes: 80, outsInputs: 40}

func TestWork(t *testing.T) {
	for _, c := range []struct {
		name string
		got  Work
		want Work
	}{
		// 3 tokens: 2·2·1000·3 of the layers, 4·2·10·(1+2+3) of attention, 2·500 of the one row of logits.
		{"prefill", hand.prefill(3), Work{3, 5000 + 3*20, 12000 + 480 + 1000}},
		// 2 tokens after 4 have 5 and 6 keys: each reads all weights, a row of the embedding and 2·keys·80 bytes.
		{"decode", hand.decode(4, 2), Work{2, 2*5020 + 2*11*80, 2*(2*2*1000+2*500) + 4*2*10*11}},
		// 2 rows of 3 tokens, 4 targets. A token: 4000 forward, 2·(1000+100) backward, and 6·1·2·40 of rank 1.
		{"step", hand.step(2, 3, 1), Work{6, 10000 + 120, 6*(4000+2200+480) + 4*4*500 + 12*2*10*2*6}},
	} {
		if c.got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, c.got, c.want)
		}
	}
}

func TestFloor(t *testing.T) {
	for _, c := range []struct {
		work    Work
		roof    Roof
		seconds float64
		half    string
	}{
		{Work{1, 100, 100}, Roof{10, 100}, 10, "memory"},
		{Work{1, 100, 1000}, Roof{100, 10}, 100, "product"},
	} {
		if seconds, half := c.work.Seconds(c.roof); seconds != c.seconds || half != c.half {
			t.Errorf("%+v under %+v: %g s of %s, want %g s of %s", c.work, c.roof, seconds, half, c.seconds, c.half)
		}
	}
	// 10 tokens at 100 bytes each and 50 bytes a second: 20 s. Runs of 25, 40 and 80 s: half the floor's speed.
	row := measured{work: Work{10, 1000, 0}, seconds: []float64{80, 25, 40}}.row(Machine{ReadBytesPerSecond: 50, RegisterFlops: 1, FlopsFrom: "registers"})
	if row.Floor != 0.5 || row.TokensPerSecond != 0.25 || row.Share != 0.5 || row.Spread != [2]float64{10.0 / 60, 10.0 / 32.5} || row.FloorFrom != "memory" {
		t.Errorf("%+v", row)
	}
}

func TestRoof(t *testing.T) {
	m := Machine{ReadBytesPerSecond: 3, RegisterFlops: 5, ProductFlops: 4, FlopsFrom: "registers"}
	if got, want := m.roof(7), (Roof{7, 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	m.FlopsFrom = "product"
	if got, want := m.roof(0), (Roof{3, 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The tiny shape counted from its configuration.
func TestExtent(t *testing.T) {
	dir := t.TempDir()
	if err := writeRandom(t.Context(), dir, "tiny", func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	b := cpu.New()
	w, err := model.Load(b, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	a, err := model.NewAdapter(b, w.Config, model.AdapterConfig{R: 4, Alpha: 8, Targets: []string{"q_proj", "v_proj"}}, 1, w.DType())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	const d, f, v, layers = 160, 640, 2048, 6
	want := extent{
		layers: layers, products: 4*d*d + 2*d*f, dense: d * d, head: v * d,
		bytes: 2 * (layers*(4*d*d+2*d*f+5*d+f+2*d) + 2*d + v*d + v),
		row:   2 * d, queries: d, keyBytes: 2 * 4 * d, outsInputs: 4 * d,
	}
	got := extentOf(&model.Model{Weights: w, Adapter: a})
	if math.Abs(got.outsInputs-want.outsInputs) < 1e-9 {
		got.outsInputs = want.outsInputs
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The loops of the roofs keep to their buffers and come to an end.
func TestRoofLoops(t *testing.T) {
	read(make([]byte, 3*readStep))
	read(nil)
	for _, path := range cpu.Paths() {
		if loop, flops, from := registerLoop(string(path)); loop != nil {
			loop(1)
			if flops <= 0 || from == "" {
				t.Errorf("%s: a loop of %g operations of %q", path, flops, from)
			}
		}
	}
}
