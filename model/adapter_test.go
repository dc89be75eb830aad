package model_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/safetensors"
)

func newAdapter(t *testing.T, c model.Config, ac model.AdapterConfig, seed uint64, round kernels.DType) *model.Adapter {
	t.Helper()
	a, err := model.NewAdapter(cpu.New(), c, ac, seed, round)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Free)
	return a
}

func config(t *testing.T, s modeltest.Shape) model.Config {
	t.Helper()
	c, err := model.ReadConfig(write(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewAdapterStartsAsPEFTDoes(t *testing.T) {
	c := config(t, modeltest.Shape{Hidden: 120, Intermediate: 200})
	ac := model.AdapterConfig{R: 16, Alpha: 24, Targets: []string{"fc2", "q_proj", "lm_head"}}
	a := newAdapter(t, c, ac, 1, kernels.F16)
	if !a.IsZero() {
		t.Error("B is not zero at the start")
	}
	var order [][2]int
	for _, m := range a.Modules {
		order = append(order, [2]int{m.Layer, m.Linear})
		out, in := c.LinearShape(m.Linear)
		if m.A.Rows != 16 || m.A.Cols != in || m.B.Rows != out || m.B.Cols != 16 || m.Scale != 1.5 {
			t.Errorf("module of %d by %d has %v, %v, scale %g", out, in, m.A, m.B, m.Scale)
		}
		bound := 1 / math.Sqrt(float64(in))
		var mean, square, largest float64
		for _, v := range m.A.F32s() {
			x := float64(v) / bound
			mean, square, largest = mean+x, square+x*x, max(largest, math.Abs(x))
			if v != kernels.F16ToF32(kernels.F32ToF16(v)) {
				t.Fatalf("%g is not rounded to float16", v)
			}
		}
		n := float64(m.A.Len())
		mean, square = mean/n, square/n
		if math.Abs(mean) > 4/math.Sqrt(3*n) || math.Abs(square-1./3) > 4*math.Sqrt(4./45/n) || largest > 1.0005 || largest < 0.98 {
			t.Errorf("A's mean is %g, its mean square %g, its largest %g of the bound", mean, square, largest)
		}
	}
	if want := [][2]int{{0, model.QProj}, {0, model.FC2}, {1, model.QProj}, {1, model.FC2}, {-1, model.LMHead}}; !slices.Equal(order, want) {
		t.Errorf("the modules are %v, not %v", order, want)
	}
	if got, want := a.Bytes(), int64(4*16*(2*(120+120)+2*(120+200)+(120+61))); got != want {
		t.Errorf("%d bytes, not %d", got, want)
	}
	a.Modules[3].B.F32s()[7] = 1e-30
	if a.IsZero() {
		t.Error("an adapter with a weight in B counts as zero")
	}
}

// TestDrawsOfAModuleAreItsOwn: the start of a linear depends on the seed, not on what else is adapted.
func TestDrawsOfAModuleAreItsOwn(t *testing.T) {
	c := config(t, modeltest.Shape{})
	start := func(seed uint64, round kernels.DType, targets ...string) []float32 {
		a := newAdapter(t, c, model.AdapterConfig{R: 3, Alpha: 3, Targets: targets}, seed, round)
		return a.Find(1, model.VProj).A.F32s()
	}
	one := start(5, kernels.F32, "v_proj")
	if !slices.Equal(one, start(5, kernels.F32, "fc1", "v_proj", "q_proj")) {
		t.Error("other targets change the start of v_proj")
	}
	if slices.Equal(one, start(6, kernels.F32, "v_proj")) {
		t.Error("another seed gives the same start")
	}
	a := newAdapter(t, c, model.AdapterConfig{R: 3, Alpha: 3, Targets: []string{"v_proj", "k_proj"}}, 5, kernels.F32)
	if slices.Equal(one, a.Find(0, model.VProj).A.F32s()) || slices.Equal(one, a.Find(1, model.KProj).A.F32s()) {
		t.Error("two modules have the same start")
	}
	for i, v := range start(5, kernels.BF16, "v_proj") {
		if v != kernels.BF16ToF32(kernels.F32ToBF16(one[i])) {
			t.Fatalf("%g is not %g rounded to bfloat16", v, one[i])
		}
	}
}

func TestTargets(t *testing.T) {
	c := config(t, modeltest.Shape{Layers: 3})
	a := newAdapter(t, c, model.AdapterConfig{R: 4, Alpha: 6, RSLoRA: true, Layers: []int{0, 2}, Targets: []string{"self_attn.dense", "mlp.fc1"}}, 0, kernels.F32)
	var names []string
	for _, p := range a.Parameters() {
		names = append(names, p.Name)
	}
	const prefix = "base_model.model.model.layers."
	want := []string{prefix + "0.self_attn.dense.lora_A.weight", prefix + "0.self_attn.dense.lora_B.weight", prefix + "0.mlp.fc1.lora_A.weight", prefix + "0.mlp.fc1.lora_B.weight",
		prefix + "2.self_attn.dense.lora_A.weight", prefix + "2.self_attn.dense.lora_B.weight", prefix + "2.mlp.fc1.lora_A.weight", prefix + "2.mlp.fc1.lora_B.weight"}
	if !slices.Equal(names, want) {
		t.Errorf("the parameters are %q", names)
	}
	if a.Modules[0].Scale != 3 {
		t.Errorf("rank-stabilised scale %g, not 6/√4", a.Modules[0].Scale)
	}
	tied := c
	tied.Tied = true
	const all = "q_proj, k_proj, v_proj, dense, fc1, fc2, lm_head"
	for _, e := range []struct {
		c    model.Config
		ac   model.AdapterConfig
		want string
	}{
		{c, model.AdapterConfig{R: 2}, "make an adapter: no targets; name some of " + all},
		{c, model.AdapterConfig{R: 2, Targets: []string{"q_proj", "o_proj"}}, `make an adapter: target "o_proj" matches nothing in the model; its linears are ` + all},
		{c, model.AdapterConfig{R: 2, Targets: []string{"proj"}}, `make an adapter: target "proj" matches nothing in the model; its linears are ` + all},
		{c, model.AdapterConfig{R: 2, Targets: []string{""}}, `make an adapter: target "" matches nothing in the model; its linears are ` + all},
		{tied, model.AdapterConfig{R: 2, Targets: []string{"lm_head"}}, "make an adapter: lm_head is tied to the embedding and cannot be a target"},
		{c, model.AdapterConfig{R: 0, Targets: []string{"q_proj"}}, "make an adapter: rank 0 is not within 1 and 16384"},
		{c, model.AdapterConfig{R: 16385, Targets: []string{"fc1"}}, "make an adapter: rank 16385 is not within 1 and 16384"},
		{c, model.AdapterConfig{R: 2, Targets: []string{"fc1"}, Layers: []int{3}}, "make an adapter: layer 3 is not one of the model's 3"},
		{c, model.AdapterConfig{R: 2, Targets: []string{"lm_head"}, Layers: []int{1}}, `make an adapter: targets ["lm_head"] match nothing in layers [1]`},
	} {
		if _, err := model.NewAdapter(cpu.New(), e.c, e.ac, 0, kernels.F32); err == nil || err.Error() != e.want {
			t.Errorf("%+v: error %v, not %s", e.ac, err, e.want)
		}
	}
}

func TestAdapterMemory(t *testing.T) {
	c := config(t, modeltest.Shape{})
	ac := model.AdapterConfig{R: 2, Alpha: 2, Targets: []string{"q_proj", "fc2"}}
	for at := 1; ; at++ {
		l := newLedger(at)
		a, err := model.NewAdapter(l, c, ac, 0, kernels.F32)
		if err == nil {
			err = a.EnableGrad()
			if again := l.requests; err == nil && (a.EnableGrad() != nil || l.requests != again) {
				t.Error("enabling gradients twice reserves them twice")
			}
			a.Free()
			a.Free()
		}
		if l.live != 0 {
			t.Fatalf("%d bytes were never freed when request %d failed", l.live, at)
		}
		if l.requests < at {
			if want := 2*4 + 2; err != nil || l.requests != want {
				t.Errorf("%d requests, not %d: %v", l.requests, want, err)
			}
			return
		}
		if err == nil || !strings.HasPrefix(err.Error(), "reserve memory for the adapter") {
			t.Fatalf("request %d failed, and the error is %v", at, err)
		}
	}
}

func TestAdapterRoundTrip(t *testing.T) {
	for name, shape := range shapes {
		src := write(t, shape)
		base := weights(t, src)
		targets := []string{"dense", "fc1", "lm_head"}
		if shape.Tied {
			targets = targets[:2]
		}
		first := adapterFolder(t, src, targets...)
		a := loadAdapter(t, base, first)
		want := model.AdapterConfig{BaseModel: "org/base", R: 3, Alpha: 4, Dropout: 0.1, Targets: targets}
		if !reflect.DeepEqual(a.Config, want) {
			t.Errorf("%s: the configuration reads back as %+v, not %+v", name, a.Config, want)
		}
		second := t.TempDir()
		if err := a.Save(second); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"adapter_config.json", "adapter_model.safetensors"} {
			x, _ := os.ReadFile(filepath.Join(first, file))
			y, err := os.ReadFile(filepath.Join(second, file))
			if err != nil || !bytes.Equal(x, y) {
				t.Errorf("%s: %s differs after loading and saving", name, file)
			}
		}
	}
}

// adapterTensors are those of an adapter's folder, copied.
func adapterTensors(t *testing.T, dir string) map[string]safetensors.Tensor {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Metadata["format"] != "pt" {
		t.Errorf("metadata %v", f.Metadata)
	}
	all := map[string]safetensors.Tensor{}
	for _, x := range f.Tensors() {
		x.Data = bytes.Clone(x.Data)
		all[x.Name] = x
	}
	return all
}

// changedAdapter is a copy of an adapter's folder with its tensors changed.
func changedAdapter(t *testing.T, dir string, change func(map[string]safetensors.Tensor)) string {
	t.Helper()
	all, out := adapterTensors(t, dir), t.TempDir()
	change(all)
	var entries []safetensors.Entry
	for name, x := range all {
		entries = append(entries, safetensors.Entry{Name: name, DType: x.DType, Shape: x.Shape, Data: safetensors.Bytes(x.Data)})
	}
	text, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "adapter_config.json"), text, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(filepath.Join(out, "adapter_model.safetensors"), map[string]string{"format": "pt"}, entries); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHalfPrecisionAdaptersAreRead(t *testing.T) {
	src := write(t, modeltest.Shape{})
	base, dir := weights(t, src), adapterFolder(t, src, "q_proj")
	full := loadAdapter(t, base, dir)
	for d, narrow := range map[safetensors.DType]func(float32) uint16{"F16": kernels.F32ToF16, "BF16": kernels.F32ToBF16} {
		wide := map[safetensors.DType]func(uint16) float32{"F16": kernels.F16ToF32, "BF16": kernels.BF16ToF32}[d]
		a := loadAdapter(t, base, changedAdapter(t, dir, func(all map[string]safetensors.Tensor) {
			for name, x := range all {
				var data []byte
				for i := 0; i < len(x.Data); i += 4 {
					data = binary.LittleEndian.AppendUint16(data, narrow(math.Float32frombits(binary.LittleEndian.Uint32(x.Data[i:]))))
				}
				x.DType, x.Data = d, data
				all[name] = x
			}
		}))
		for i, p := range a.Parameters() {
			exact := full.Parameters()[i].Value.F32s()
			for j, v := range p.Value.F32s() {
				if v != wide(narrow(exact[j])) {
					t.Fatalf("%s: %s[%d] is %g, not %g rounded", d, p.Name, j, v, exact[j])
				}
			}
		}
	}
}

func TestBadAdapterFoldersAreRefused(t *testing.T) {
	src := write(t, modeltest.Shape{})
	base, good := weights(t, src), adapterFolder(t, src, "q_proj", "lm_head")
	const a1, b1 = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
	type all = map[string]safetensors.Tensor
	pickled := t.TempDir()
	text, err := os.ReadFile(filepath.Join(good, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"adapter_config.json": text, "adapter_model.bin": {0x80, 2}} {
		if err := os.WriteFile(filepath.Join(pickled, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ dir, err string }{
		"empty":     {t.TempDir(), "adapter_config.json is missing; a PEFT folder holds it and adapter_model.safetensors"},
		"pickle":    {pickled, "adapter_model.bin is a pickle, which can run code; save the adapter again as safetensors"},
		"missing B": {changedAdapter(t, good, func(x all) { delete(x, b1) }), "tensor " + b1 + " is missing, though target_modules names it; is the file whole, and the base the right one?"},
		"missing A": {changedAdapter(t, good, func(x all) { delete(x, a1) }), "tensor " + a1 + " is missing, though target_modules names it; is the file whole, and the base the right one?"},
		"another rank": {changedAdapter(t, good, func(x all) {
			a := x[a1]
			a.Shape, a.Data = []int{2, 42}, a.Data[:4*2*42]
			x[a1] = a
		}), "tensor " + a1 + " has shape [2 42], but r and the base's config.json ask for [3 42]; is it the adapter of another base?"},
		"turned": {changedAdapter(t, good, func(x all) {
			b := x[b1]
			b.Shape = []int{3, 42}
			x[b1] = b
		}), "tensor " + b1 + " has shape [3 42], but r and the base's config.json ask for [42 3]; is it the adapter of another base?"},
		"integers": {changedAdapter(t, good, func(x all) {
			b := x[b1]
			b.DType = "I32"
			x[b1] = b
		}), "tensor " + b1 + " has dtype I32, not F32, F16 or BF16"},
		"NaN": {changedAdapter(t, good, func(x all) { copy(x[b1].Data[4:], []byte{0, 0, 0xc0, 0x7f}) }), "tensor " + b1 + " holds a weight that is not finite; train the adapter again"},
		"another target": {changedAdapter(t, good, func(x all) { x["base_model.model.model.layers.1.mlp.fc1.lora_A.weight"] = x[a1] }),
			`tensor "base_model.model.model.layers.1.mlp.fc1.lora_A.weight" is no LoRA weight of a linear in target_modules, and would be ignored; is it the adapter of another model?`},
		"control characters": {changedAdapter(t, good, func(x all) { x["\x1b[2J"] = x[a1] }),
			`tensor "\x1b[2J" is no LoRA weight of a linear in target_modules, and would be ignored; is it the adapter of another model?`},
	} {
		a, err := model.LoadAdapter(base.Backend(), base.Config, c.dir)
		if err == nil {
			a.Free()
		}
		if want := "load adapter " + c.dir + ": " + c.err; err == nil || err.Error() != want {
			t.Errorf("%s: error %v, not %s", name, err, want)
		}
	}
}

func TestNonFiniteAdapterIsNotSaved(t *testing.T) {
	a := newAdapter(t, config(t, modeltest.Shape{}), model.AdapterConfig{R: 2, Alpha: 2, Targets: []string{"fc2"}}, 0, kernels.F32)
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		a.Modules[1].B.F32s()[3] = float32(bad)
		dir := t.TempDir()
		const want = "save the adapter: base_model.model.model.layers.1.mlp.fc2.lora_B.weight holds a weight that is not finite; lower learning_rate"
		if err := a.Save(dir); err == nil || err.Error() != want {
			t.Errorf("error %v, not %s", err, want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("left %v", entries)
		}
	}
}

// TestGoldenAdapterFolder reads PEFT's own folder and writes it again: the same tensors bit by bit, and of each key that is
// written PEFT's value, but for the order of the targets.
func TestGoldenAdapterFolder(t *testing.T) {
	peft, out := goldenFile(t, "phi", "lora"), t.TempDir()
	a := loadAdapter(t, weights(t, goldenFile(t, "phi", "base")), peft)
	if err := a.Save(out); err != nil {
		t.Fatal(err)
	}
	want, got := adapterTensors(t, peft), adapterTensors(t, out)
	if len(got) != len(want) {
		t.Errorf("%d tensors, not %d", len(got), len(want))
	}
	for name, w := range want {
		if g := got[name]; g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s is %s%v, not %s%v, or holds other values", name, g.DType, g.Shape, w.DType, w.Shape)
		}
	}
	var theirs, ours map[string]any
	for dir, into := range map[string]*map[string]any{peft: &theirs, out: &ours} {
		text, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
		if err != nil || json.Unmarshal(text, into) != nil {
			t.Fatal(err)
		}
	}
	for key, value := range ours {
		w, ok := theirs[key]
		if !ok || !reflect.DeepEqual(value, w) {
			t.Errorf("%s is %v, PEFT's is %v", key, value, w)
		}
	}
}
