package bench

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"quartet/kernels"
	"quartet/model"
	"quartet/safetensors"
)

// shapes are the configurations of the random models. tiny is the shape of the demo's model, phi-2 that of microsoft/phi-2.
var shapes = map[string]string{
	"tiny": `{
 "model_type": "phi", "torch_dtype": "float16", "vocab_size": 2048, "hidden_size": 160, "intermediate_size": 640,
 "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
 "hidden_act": "gelu_new", "layer_norm_eps": 1e-05, "partial_rotary_factor": 0.4, "rope_theta": 10000.0,
 "resid_pdrop": 0.0, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 0
}
`,
	"phi-2": `{
 "model_type": "phi", "torch_dtype": "float16", "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240,
 "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048,
 "hidden_act": "gelu_new", "layer_norm_eps": 1e-05, "partial_rotary_factor": 0.4, "rope_theta": 10000.0,
 "resid_pdrop": 0.1, "tie_word_embeddings": false, "bos_token_id": 50256, "eos_token_id": 50256
}
`,
}

// Shapes are the names of the random models' shapes.
func Shapes() []string { return slices.Sorted(maps.Keys(shapes)) }

// randomConfig is a shape's configuration.
func randomConfig(shape string) (model.Config, error) {
	text, ok := shapes[shape]
	if !ok {
		return model.Config{}, fmt.Errorf("no random shape %q; there are %s", shape, strings.Join(Shapes(), ", "))
	}
	return model.ParseConfig([]byte(text))
}

// shardBytes is the size of the random model's shards.
const shardBytes = 5_000_000_000

// writeRandom writes a model of a shape into dir, in fp16 and without a tokenizer: bell-shaped weights of a size that
// keeps activations near one. One matrix is in memory at a time. progress is told bytes.
func writeRandom(ctx context.Context, dir, shape string, progress func(done, total int64)) error {
	c, err := randomConfig(shape)
	if err != nil {
		return err
	}
	var entries []safetensors.Entry
	var buffer []uint16 // of the tensor at hand
	var done int64
	add := func(name string, mean, deviation float64, size ...int) {
		n := 1
		for _, d := range size {
			n *= d
		}
		seed := uint64(len(entries))
		entries = append(entries, safetensors.Entry{Name: name, DType: "F16", Shape: size, Data: func() ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if cap(buffer) < n {
				buffer = make([]uint16, n)
			}
			fill(buffer[:n], mean, deviation, seed)
			done += int64(2 * n)
			progress(done, 2*c.Parameters())
			return kernels.AsBytes(buffer[:n]), nil
		}})
	}
	linear := func(layer, l int) {
		out, in := c.LinearShape(l)
		path := model.LinearPath(layer, l)
		add(path+".weight", 0, 1/math.Sqrt(float64(in)), out, in)
		add(path+".bias", 0, 0.02, out)
	}
	add("model.embed_tokens.weight", 0, 0.5, c.VocabSize, c.Hidden)
	for i := range c.Layers {
		norm := fmt.Sprintf("model.layers.%d.input_layernorm", i)
		add(norm+".weight", 1, 0.1, c.Hidden)
		add(norm+".bias", 0, 0.02, c.Hidden)
		for l := range model.LinearsPerLayer {
			linear(i, l)
		}
	}
	add("model.final_layernorm.weight", 1, 0.1, c.Hidden)
	add("model.final_layernorm.bias", 0, 0.02, c.Hidden)
	linear(0, model.LMHead)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(shapes[shape]), 0o666); err != nil {
		return err
	}
	return safetensors.WriteFolder(dir, entries, shardBytes)
}

// fill draws fp16 values of about a normal distribution: its quantiles, each as likely. All threads share the work; what
// they draw depends on the seed and the place alone.
func fill(values []uint16, mean, deviation float64, seed uint64) {
	const bits, block = 12, 1 << 16
	var table [1 << bits]uint16
	for i := range table {
		quantile := math.Sqrt2 * math.Erfinv(2*(float64(i)+0.5)/float64(len(table))-1)
		table[i] = kernels.F32ToF16(float32(mean + deviation*quantile))
	}
	together(func(thread, threads int) {
		for at := thread * block; at < len(values); at += threads * block {
			state := seed<<32 + uint64(at)
			for part := range slices.Chunk(values[at:min(at+block, len(values))], 64/bits) {
				// SplitMix64 (Steele, Lea and Flood 2014).
				state += 0x9e3779b97f4a7c15
				word := (state ^ state>>30) * 0xbf58476d1ce4e5b9
				word = (word ^ word>>27) * 0x94d049bb133111eb
				word ^= word >> 31
				for i := range part {
					part[i] = table[word&(1<<bits-1)]
					word >>= bits
				}
			}
		}
	})
}

// nf4Bytes is about the size of a model of 16-bit weights once its layers' linears are in NF4: 4.13 bits a weight.
func nf4Bytes(c model.Config) int64 {
	var quantised int64
	for l := range model.LinearsPerLayer {
		out, in := c.LinearShape(l)
		quantised += int64(c.Layers) * int64(out) * int64(in)
	}
	return 2*(c.Parameters()-quantised) + quantised*129/250
}

// room checks that a folder's disk can take that many bytes more.
func room(dir string, want int64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return fmt.Errorf("look for room in %s: %w", dir, err)
	}
	want += want/50 + 1<<24 // headers, and what a file system keeps for itself
	if free := int64(s.Bavail) * int64(s.Bsize); free < want {
		return fmt.Errorf("the benchmark writes %s into %s, which has %s free; make room, or set TMPDIR to a folder with more", bytes(want), dir, bytes(free))
	}
	return nil
}

// bytes writes a size in decimal units.
func bytes(n int64) string {
	if n < 1e9 {
		return digits(float64(n)/1e6) + " MB"
	}
	return digits(float64(n)/1e9) + " GB"
}
