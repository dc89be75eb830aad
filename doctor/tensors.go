package doctor

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quartet/console"
	"quartet/model"
	"quartet/safetensors"
)

// open reads a weights file's header and says what is wrong with it.
func (x *exam) open(path, name string, all []Library) *safetensors.File {
	if slices.ContainsFunc(x.r.Findings, func(f Finding) bool { return f.Level == Error && f.Where == name }) {
		return nil // said already: a pointer, a dangling link
	}
	f, err := safetensors.Open(path)
	if err != nil {
		if have, want := truncated(path); have < want {
			x.fail(name, all, "truncated: it has %d of %d bytes (%.3g %%); download it again", have, want, 100*float64(have)/float64(want))
		} else {
			x.fail(name, all, "%s", within(err, "open", path))
		}
		return nil
	}
	f.Close()
	switch format, ok := f.Metadata["format"]; {
	case f.Metadata == nil:
		x.warn(name, "its header has no metadata {\"format\": \"pt\"}, which transformers before 4.40 refuses; save it again with safetensors' save_file(…, metadata={\"format\": \"pt\"})")
	case !ok || format != "pt" && format != "tf" && format != "flax" && format != "mlx":
		x.fail(name, []Library{Transformers}, "its metadata lacks format \"pt\"; save it again with safetensors' save_file(…, metadata={\"format\": \"pt\"})")
	}
	return f
}

// truncated is how many bytes a weights file has and how many its header asks for; equal where that cannot be known.
func truncated(path string) (have, want int64) {
	const most = 32 << 20 // of a header
	f, err := os.Open(path)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	info, err := f.Stat()
	var length uint64
	if err != nil || binary.Read(f, binary.LittleEndian, &length) != nil || length > most {
		return 0, 0
	}
	have = info.Size()
	if int64(length)+8 > have {
		return have, int64(length) + 8
	}
	header := make([]byte, length)
	var tensors map[string]struct {
		Offsets []int64 `json:"data_offsets"`
	}
	if _, err := io.ReadFull(f, header); err != nil || json.Unmarshal(header, &tensors) != nil {
		return have, have
	}
	var end int64
	for _, t := range tensors {
		if len(t.Offsets) == 2 {
			end = max(end, t.Offsets[1])
		}
	}
	if end > 1<<50 {
		return have, have // no file has as much
	}
	return have, max(have, 8+int64(length)+end)
}

// tensor is one that a Phi needs.
type tensor struct {
	name       string
	rows, cols int // a vector has one row
	linear     bool
}

// needed are the tensors of a Phi of a configuration.
func needed(c *model.Config) (all []tensor) {
	vector := func(name string, n int) { all = append(all, tensor{name, 1, n, false}) }
	linear := func(layer, l int) {
		out, in := c.LinearShape(l)
		path := model.LinearPath(layer, l)
		if l != model.LMHead || !c.Tied {
			all = append(all, tensor{path + ".weight", out, in, l != model.LMHead})
		}
		vector(path+".bias", out)
	}
	all = append(all, tensor{"model.embed_tokens.weight", c.VocabSize, c.Hidden, false})
	for i := range c.Layers {
		vector(fmt.Sprintf("model.layers.%d.input_layernorm.weight", i), c.Hidden)
		vector(fmt.Sprintf("model.layers.%d.input_layernorm.bias", i), c.Hidden)
		for l := range model.LinearsPerLayer {
			linear(i, l)
		}
	}
	vector("model.final_layernorm.weight", c.Hidden)
	vector("model.final_layernorm.bias", c.Hidden)
	linear(0, model.LMHead)
	return all
}

// The names of what bitsandbytes keeps beside a quantised weight.
const (
	quantState = ".quant_state.bitsandbytes__"
	stateNF4   = quantState + "nf4"
	stateFP4   = quantState + "fp4"
)

// tensors holds the folder's tensors against its configuration, which is nil for a model that this program does not know.
func (x *exam) tensors(ck *safetensors.Checkpoint, s settings, c *model.Config, all []Library) {
	states := map[string]int{}
	for _, name := range ck.Names() {
		for _, suffix := range []string{stateNF4, stateFP4} {
			if strings.HasSuffix(name, suffix) {
				states[suffix]++
			}
		}
	}
	quantised := s.Quantization != nil && s.Quantization.Method == "bitsandbytes" && s.Quantization.In4Bit
	switch {
	case quantised && len(states) == 0:
		x.fail(configName, all, "quantization_config asks for 4-bit weights, but no weight has a quant_state; remove quantization_config, or quantise again")
		return
	case !quantised && len(states) > 0:
		x.fail(configName, all, "the weights are 4-bit, but there is no quantization_config with load_in_4bit; take the config.json that was saved with them")
		return
	case states[stateFP4] > 0:
		x.fail("", []Library{Quartet}, "%d weights are fp4, and only nf4 is computed here; quantise the base again with bnb_4bit_quant_type nf4", states[stateFP4])
		return
	case quantised && s.Quantization.QuantType != "" && s.Quantization.QuantType != "nf4":
		x.warn(configName, "bnb_4bit_quant_type is %.20q, but the weights are nf4; set it to nf4", s.Quantization.QuantType)
	}
	if c == nil {
		return
	}
	var missing, shapes, types, broken []string
	known := map[string]bool{}
	for _, want := range needed(c) {
		known[want.name] = true
		if quantised && want.linear {
			if _, found, err := model.FindNF4(ck, want.name, want.rows, want.cols); err != nil {
				broken = append(broken, strings.TrimPrefix(err.Error(), "tensor "))
				continue
			} else if found {
				continue
			}
		}
		switch t, err := ck.Get(want.name); {
		case err != nil:
			missing = append(missing, want.name)
		case !shapeIs(t.Shape, want):
			shapes = append(shapes, fmt.Sprintf("%s is %v, not [%d %d]", want.name, t.Shape, want.rows, want.cols))
		case t.DType != safetensors.F16 && t.DType != safetensors.BF16 && t.DType != safetensors.F32:
			types = append(types, fmt.Sprintf("%s is %s", want.name, t.DType))
		}
	}
	for _, name := range ck.Names() {
		if strings.HasPrefix(name, "layers.") || strings.HasPrefix(name, "transformer.") {
			x.fail("", all, "the tensors are named as in the layout of 2023 (%.60q); take a revision of 2024 or later", name)
			return
		}
	}
	if len(missing) > 0 {
		x.fail("", all, "tensors are missing, which transformers fills with random numbers: %s; download the folder again, or save the model again", some(missing))
	}
	if len(shapes) > 0 {
		x.fail("", all, "%s; weights and config.json belong to different models", some(shapes))
	}
	if len(types) > 0 {
		x.fail("", all, "%s, not F16, BF16 or F32; take the folder's original weights, or save them in 16 bits", some(types))
	}
	if len(broken) > 0 {
		x.fail("", all, "the 4-bit state does not fit: %s; quantise the base again", some(broken))
	}
	var extra []string
	for _, name := range ck.Names() {
		weight, _, _ := strings.Cut(name, ".weight.")
		if !known[name] && !known[weight+".weight"] && !strings.HasSuffix(name, "rotary_emb.inv_freq") && !(c.Tied && name == "lm_head.weight") {
			extra = append(extra, fmt.Sprintf("%.120q", name))
		}
	}
	if len(extra) > 0 {
		x.warn("", "tensors that no Phi has, and no loader takes: %s; is it a fine-tune with a head of its own?", some(extra))
	}
	x.types(ck, s)
}

// types warns of weights in several types, or in another one than config.json says.
func (x *exam) types(ck *safetensors.Checkpoint, s settings) {
	stored := typesOf(ck, true)
	if strings.Contains(stored, "+") {
		x.warn("", "weights of several types, %s, which a loader makes one; save them in one type", stored)
		return
	}
	said := s.DType + s.TorchDType
	names := map[string]string{"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
	if want, ok := names[said]; ok && stored != "" && stored != want {
		x.warn(configName, "says %s, but the weights are %s: transformers 5 converts them when it loads; set dtype to what is stored", said, stored)
	}
}

// typesOf are the element types of a folder's floating weights, besides those of a quantised weight's state, as F16+F32;
// with the share in NF4 unless plain.
func typesOf(ck *safetensors.Checkpoint, plain bool) string {
	found := map[string]bool{}
	for _, name := range ck.Names() {
		t, err := ck.Get(name)
		switch {
		case err != nil:
		case strings.HasSuffix(name, stateNF4) && !plain:
			found["NF4"] = true
		case strings.HasSuffix(name, stateFP4) && !plain:
			found["FP4"] = true
		case strings.Contains(name, ".weight."):
		case t.DType == safetensors.F16 || t.DType == safetensors.BF16 || t.DType == safetensors.F32 || t.DType == safetensors.F64:
			found[string(t.DType)] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), "+")
}

func shapeIs(shape []int, want tensor) bool {
	return slices.Equal(shape, []int{want.rows, want.cols}) || want.rows == 1 && slices.Equal(shape, []int{want.cols})
}

// weightsFile examines a single .safetensors file.
func (x *exam) weightsFile(path string, info fs.FileInfo) {
	x.r.Kind = Weights
	all := []Library{Transformers, Quartet}
	name := filepath.Base(path)
	x.open(path, name, all)
	if f, err := safetensors.Open(path); err == nil {
		defer f.Close()
		types := map[string]bool{}
		for _, t := range f.Tensors() {
			types[string(t.DType)] = true
		}
		x.r.About = fmt.Sprintf("%d tensors, %s, %s; name its folder to have it held against config.json", len(f.Tensors()), strings.Join(slices.Sorted(maps.Keys(types)), "+"), console.Bytes(info.Size()))
		if at, hole := holeAt(path, info.Size()); hole {
			x.warn(name, "nothing was ever written from byte %d on for a while, as in an unfinished download; compare its SHA-256 or download it again", at)
		}
		if x.Deep {
			x.scan(f.Tensors())
		}
	}
	x.judge(all...)
}
