// Package modeltest writes small random Phi folders for tests.
package modeltest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"quartet/kernels"
	"quartet/model"
	"quartet/safetensors"
)

// Shape is a random model's size; zero fields take small odd defaults that nothing divides.
type Shape struct {
	Vocab, Hidden, Intermediate, Layers, Heads, KVHeads, Positions int
	Rotary                                                         float64
	ResidDropout                                                   float64
	Tied                                                           bool
	DType                                                          safetensors.DType // F16, BF16 or F32
	Seed                                                           uint64
}

// Write makes a model folder (config.json and model.safetensors, no tokenizer) in dir with weights of about the size
// that training leaves.
func Write(dir string, s Shape) error {
	fill := func(v *int, value int) {
		if *v == 0 {
			*v = value
		}
	}
	fill(&s.Vocab, 61)
	fill(&s.Hidden, 42)
	fill(&s.Intermediate, 77)
	fill(&s.Layers, 2)
	fill(&s.Heads, 3)
	fill(&s.KVHeads, s.Heads)
	fill(&s.Positions, 64)
	if s.Rotary == 0 {
		s.Rotary = 0.6
	}
	if s.DType == "" {
		s.DType = "F16"
	}
	names := map[safetensors.DType]string{"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
	config, err := json.MarshalIndent(map[string]any{
		"architectures": []string{"PhiForCausalLM"}, "model_type": "phi", "vocab_size": s.Vocab, "hidden_size": s.Hidden,
		"intermediate_size": s.Intermediate, "num_hidden_layers": s.Layers, "num_attention_heads": s.Heads,
		"num_key_value_heads": s.KVHeads, "max_position_embeddings": s.Positions, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5,
		"partial_rotary_factor": s.Rotary, "rope_theta": 10000.0, "resid_pdrop": s.ResidDropout, "tie_word_embeddings": s.Tied,
		"bos_token_id": 0, "eos_token_id": 0, "torch_dtype": names[s.DType],
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), append(config, '\n'), 0o666); err != nil {
		return err
	}
	c, err := model.ParseConfig(config)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(s.Seed, 1))
	var entries []safetensors.Entry
	add := func(name string, mean, deviation float64, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]byte, 0, n*s.DType.Size())
		for range n {
			v := float32(mean + deviation*r.NormFloat64())
			switch s.DType {
			case "F32":
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
			case "BF16":
				data = binary.LittleEndian.AppendUint16(data, kernels.F32ToBF16(v))
			default:
				data = binary.LittleEndian.AppendUint16(data, kernels.F32ToF16(v))
			}
		}
		entries = append(entries, safetensors.Entry{Name: name, DType: s.DType, Shape: shape, Data: safetensors.Bytes(data)})
	}
	linear := func(layer, l int) {
		out, in := c.LinearShape(l)
		path := model.LinearPath(layer, l)
		if l != model.LMHead || !s.Tied {
			add(path+".weight", 0, 0.15, out, in)
		}
		add(path+".bias", 0, 0.05, out)
	}
	add("model.embed_tokens.weight", 0, 0.5, s.Vocab, s.Hidden)
	for i := range s.Layers {
		add(fmt.Sprintf("model.layers.%d.input_layernorm.weight", i), 1, 0.1, s.Hidden)
		add(fmt.Sprintf("model.layers.%d.input_layernorm.bias", i), 0, 0.05, s.Hidden)
		for l := range model.LinearsPerLayer {
			linear(i, l)
		}
	}
	add("model.final_layernorm.weight", 1, 0.1, s.Hidden)
	add("model.final_layernorm.bias", 0, 0.05, s.Hidden)
	linear(0, model.LMHead)
	return safetensors.Write(filepath.Join(dir, "model.safetensors"), map[string]string{"format": "pt"}, entries)
}
