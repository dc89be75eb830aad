package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"quartet/kernels"
)

// Config is the part of a Phi config.json that determines the computation.
type Config struct {
	VocabSize, Hidden, Intermediate, Layers int
	Heads, KVHeads                          int
	MaxPositions                            int
	LayerNormEps                            float32
	RotaryFactor, RopeTheta                 float64 // share of a head that is rotated; base of the angles
	ResidDropout                            float64 // on each branch's output, in training
	BOS, EOS                                int32   // -1 where the file names none
	Tied                                    bool    // the output projection is the embedding
	Quantized                               bool    // the folder holds a bitsandbytes 4-bit checkpoint
}

// configFile is config.json in both spellings: transformers 5 nests the rotary settings and renames torch_dtype.
type configFile struct {
	ModelType        string          `json:"model_type"`
	VocabSize        *int            `json:"vocab_size"`
	Hidden           *int            `json:"hidden_size"`
	Intermediate     *int            `json:"intermediate_size"`
	Layers           *int            `json:"num_hidden_layers"`
	Heads            *int            `json:"num_attention_heads"`
	KVHeads          *int            `json:"num_key_value_heads"`
	MaxPositions     *int            `json:"max_position_embeddings"`
	HiddenAct        *string         `json:"hidden_act"`
	LayerNormEps     *float64        `json:"layer_norm_eps"`
	RotaryFactor     *float64        `json:"partial_rotary_factor"`
	RopeTheta        *float64        `json:"rope_theta"`
	RopeScaling      json.RawMessage `json:"rope_scaling"`
	RopeParameters   *ropeParameters `json:"rope_parameters"`
	ResidDropout     float64         `json:"resid_pdrop"`
	EmbedDropout     float64         `json:"embd_pdrop"`
	AttentionDropout float64         `json:"attention_dropout"`
	QKLayerNorm      bool            `json:"qk_layernorm"`
	Tied             bool            `json:"tie_word_embeddings"`
	BOS              tokenID         `json:"bos_token_id"`
	EOS              tokenID         `json:"eos_token_id"`
	Quantization     *struct {
		Method     string `json:"quant_method"`
		LoadIn4Bit bool   `json:"load_in_4bit"`
	} `json:"quantization_config"`
}

type ropeParameters struct {
	RotaryFactor *float64 `json:"partial_rotary_factor"`
	RopeTheta    *float64 `json:"rope_theta"`
	RopeType     string   `json:"rope_type"`
}

// tokenID is a token id written as a number, a list of which the first counts, or null.
type tokenID struct{ id *int32 }

func (t *tokenID) UnmarshalJSON(b []byte) error {
	var many []int32
	if json.Unmarshal(b, &many) == nil && len(many) > 0 {
		t.id = &many[0]
		return nil
	}
	return json.Unmarshal(b, &t.id)
}

func (t tokenID) or(other int32) int32 {
	if t.id == nil {
		return other
	}
	return *t.id
}

// ReadConfig reads dir/config.json, and from generation_config.json the end-of-text token where config.json has none.
// It refuses what this program would compute differently from transformers.
func ReadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, "config.json")
	data, err := readText(path, maxText)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		if _, err := os.Stat(filepath.Join(dir, adapterConfigFile)); err == nil {
			return Config{}, fmt.Errorf("read %s: no such file; %s is a LoRA adapter, not a model", path, dir)
		}
		return Config{}, fmt.Errorf("read %s: no such file; a model folder holds config.json, model.safetensors and a tokenizer", path)
	}
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("read %s: %w", path, err)
	}
	if c.EOS < 0 {
		var g struct {
			EOS tokenID `json:"eos_token_id"`
		}
		path := filepath.Join(dir, "generation_config.json")
		if data, err := readText(path, maxText); err == nil && json.Unmarshal(data, &g) == nil {
			if c.EOS = g.EOS.or(-1); c.EOS >= int32(c.VocabSize) {
				return Config{}, fmt.Errorf("read %s: token id %d is outside the vocabulary of %d", path, c.EOS, c.VocabSize)
			}
		}
	}
	return c, nil
}

// maxText bounds the settings of a model or an adapter in bytes, far above any.
const maxText = 1 << 20

// readText reads a regular file of at most a number of bytes.
func readText(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("read %s: not a file of at most %d bytes; download it again", path, most)
	}
	return os.ReadFile(path)
}

// ParseConfig reads the text of a config.json.
func ParseConfig(data []byte) (Config, error) {
	var f configFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Config{}, fmt.Errorf("not a model configuration: %.200s", err)
	}
	switch f.ModelType {
	case "phi":
	case "mixformer-sequential", "phi-msft":
		return Config{}, fmt.Errorf("model_type %.60q is the layout of 2023 with other tensor names; take a revision of 2024 or later", f.ModelType)
	default:
		return Config{}, fmt.Errorf("model_type %.60q is not supported; this program runs model_type \"phi\"", f.ModelType)
	}
	if f.RopeParameters != nil {
		f.RotaryFactor = firstOf(f.RopeParameters.RotaryFactor, f.RotaryFactor)
		f.RopeTheta = firstOf(f.RopeParameters.RopeTheta, f.RopeTheta)
		if t := f.RopeParameters.RopeType; t != "" && t != "default" {
			return Config{}, fmt.Errorf("rope_type %.60q is not supported, only \"default\"", t)
		}
	}
	if s := strings.TrimSpace(string(f.RopeScaling)); s != "" && s != "null" {
		return Config{}, errors.New("rope_scaling is not supported, only null")
	}
	if f.QKLayerNorm {
		return Config{}, errors.New("qk_layernorm true is not supported")
	}
	if f.HiddenAct != nil && *f.HiddenAct != "gelu_new" {
		return Config{}, fmt.Errorf("hidden_act %.60q is not supported, only \"gelu_new\"", *f.HiddenAct)
	}
	if f.EmbedDropout != 0 || f.AttentionDropout != 0 {
		return Config{}, errors.New("embd_pdrop and attention_dropout are not supported, only 0")
	}
	if q := f.Quantization; q != nil && (q.Method != "bitsandbytes" || !q.LoadIn4Bit) {
		return Config{}, fmt.Errorf("quant_method %.60q is not supported, only bitsandbytes with load_in_4bit", q.Method)
	}
	c := Config{ResidDropout: f.ResidDropout, BOS: f.BOS.or(-1), EOS: f.EOS.or(-1), Tied: f.Tied, Quantized: f.Quantization != nil, LayerNormEps: 1e-5}
	if f.KVHeads == nil {
		f.KVHeads = f.Heads
	}
	for _, n := range []struct {
		key   string
		value *int
		most  int
		into  *int
	}{
		{"vocab_size", f.VocabSize, 1 << 22, &c.VocabSize},
		{"hidden_size", f.Hidden, 1 << 16, &c.Hidden},
		{"intermediate_size", f.Intermediate, 1 << 18, &c.Intermediate},
		{"num_hidden_layers", f.Layers, 1 << 10, &c.Layers},
		{"num_attention_heads", f.Heads, 1 << 12, &c.Heads},
		{"num_key_value_heads", f.KVHeads, 1 << 12, &c.KVHeads},
		{"max_position_embeddings", f.MaxPositions, 1 << 20, &c.MaxPositions},
	} {
		if n.value == nil {
			return Config{}, fmt.Errorf("%s is missing", n.key)
		}
		if *n.value < 1 || *n.value > n.most {
			return Config{}, fmt.Errorf("%s is %d, which is not within 1 and %d", n.key, *n.value, n.most)
		}
		*n.into = *n.value
	}
	if f.RotaryFactor == nil {
		return Config{}, errors.New("partial_rotary_factor is missing")
	}
	if f.RopeTheta == nil {
		return Config{}, errors.New("rope_theta is missing")
	}
	c.RotaryFactor, c.RopeTheta = *f.RotaryFactor, *f.RopeTheta
	if f.LayerNormEps != nil {
		c.LayerNormEps = float32(*f.LayerNormEps)
	}
	if c.Hidden < c.Heads {
		return Config{}, fmt.Errorf("num_attention_heads is %d, more than hidden_size %d", c.Heads, c.Hidden)
	}
	if c.Heads%c.KVHeads != 0 {
		return Config{}, fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	}
	for _, n := range []struct {
		key         string
		value       float64
		least, most float64
	}{
		{"partial_rotary_factor", c.RotaryFactor, 0, 1},
		{"rope_theta", c.RopeTheta, 1, 1e30},
		{"layer_norm_eps", float64(c.LayerNormEps), 0, 1},
		{"resid_pdrop", c.ResidDropout, 0, 0.999},
	} {
		if n.value < n.least || n.value > n.most {
			return Config{}, fmt.Errorf("%s is %g, which is not within %g and %g", n.key, n.value, n.least, n.most)
		}
	}
	if c.RotaryDim()%2 != 0 {
		return Config{}, fmt.Errorf("partial_rotary_factor %g rotates %d elements of a head of %d, an odd number", c.RotaryFactor, c.RotaryDim(), c.HeadDim())
	}
	for _, id := range []int32{c.BOS, c.EOS} {
		if id >= int32(c.VocabSize) {
			return Config{}, fmt.Errorf("token id %d is outside the vocabulary of %d", id, c.VocabSize)
		}
	}
	return c, nil
}

func firstOf[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// HeadDim is the elements of an attention head.
func (c Config) HeadDim() int { return c.Hidden / c.Heads }

// RotaryDim is how many elements of a head are rotated.
func (c Config) RotaryDim() int { return int(float64(c.HeadDim()) * c.RotaryFactor) }

// HeadsGeometry is the shape of attention as the kernels take it.
func (c Config) HeadsGeometry() kernels.Heads {
	return kernels.Heads{Count: c.Heads, KV: c.KVHeads, Dim: c.HeadDim(), Rotary: c.RotaryDim()}
}

// LinearShape is the rows (outputs) and columns (inputs) of a linear, QProj … LMHead.
func (c Config) LinearShape(linear int) (out, in int) {
	queries, keys := c.Heads*c.HeadDim(), c.KVHeads*c.HeadDim()
	switch linear {
	case QProj:
		return queries, c.Hidden
	case KProj, VProj:
		return keys, c.Hidden
	case Dense:
		return c.Hidden, queries
	case FC1:
		return c.Intermediate, c.Hidden
	case FC2:
		return c.Hidden, c.Intermediate
	case LMHead:
		return c.VocabSize, c.Hidden
	}
	panic(fmt.Sprintf("model: no linear %d", linear))
}

// LinearPath is the name of a linear in a checkpoint, without ".weight" or ".bias". Layer counts only for linears of a layer.
func LinearPath(layer, linear int) string {
	if linear == LMHead {
		return "lm_head"
	}
	return fmt.Sprintf("model.layers.%d.%s", layer, linearPaths[linear])
}

// LinearByName is the index of a linear that LoRA targets name, -1 for none.
func LinearByName(name string) int { return slices.Index(LinearNames[:], name) }

// Parameters is the number of weights and biases of the model.
func (c Config) Parameters() int64 {
	n := int64(c.VocabSize)*int64(c.Hidden) + 2*int64(c.Hidden)
	for l := range LMHead + 1 {
		out, in := c.LinearShape(l)
		size := int64(out)*int64(in) + int64(out)
		switch {
		case l < LMHead:
			n += int64(c.Layers) * size
		case c.Tied:
			n += int64(out)
		default:
			n += size
		}
	}
	return n + 2*int64(c.Layers)*int64(c.Hidden)
}
