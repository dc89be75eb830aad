// Logits makes what scripts/check_python.py holds against the Python libraries: the variants of a workspace, two of them
// also converted to plain folders, and in logits.safetensors the logits that this program computes for each.
//
//	go run ./scripts/logits WORKSPACE NEW_FOLDER
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/model"
	"quartet/pipeline"
	"quartet/safetensors"
	"quartet/tokenizer"
	"quartet/visible"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./scripts/logits WORKSPACE NEW_FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "logits:", visible.Line(err.Error()))
		os.Exit(1)
	}
}

// write makes the folder out, which must not exist yet.
func write(workspace, out string) error {
	w, err := pipeline.Open(workspace)
	if err != nil {
		return err
	}
	b, _, err := pipeline.OpenBackend("cpu")
	if err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o777); err != nil {
		return err
	}
	folders := map[string]string{}
	for name, path := range map[string]string{"base": w.Config.Paths.Base, "quantized": w.Config.Paths.Quantized,
		"lora": w.Config.Paths.LoRA, "lora_quantized": w.Config.Paths.LoRAQuantized} {
		folders[name] = filepath.Join(out, name)
		if err := os.CopyFS(folders[name], os.DirFS(w.Path(path))); err != nil {
			return err
		}
	}
	for name, of := range map[string][2]string{"merged": {folders["base"], folders["lora"]}, "dequantized": {folders["quantized"]}} {
		folders[name] = filepath.Join(out, name)
		if err := os.Mkdir(folders[name], 0o777); err != nil {
			return err
		}
		if err := model.Convert(b, of[0], of[1], folders[name], nil); err != nil {
			return err
		}
	}
	t, err := tokenizer.Load(folders["base"])
	if err != nil {
		return err
	}
	var prompts []string
	var ids [][]int32
	for _, question := range w.Config.Evaluation.TestPrompts {
		prompt := w.Template().Render(dataset.Row{Instruction: question})
		prompts, ids = append(prompts, prompt), append(ids, t.Encode(prompt))
	}
	text, err := json.Marshal(prompts)
	if err != nil {
		return err
	}
	entries := []safetensors.Entry{}
	for i := range ids {
		entries = append(entries, safetensors.Entry{Name: fmt.Sprintf("ids.%d", i), DType: safetensors.I32, Shape: []int{len(ids[i])},
			Data: safetensors.Bytes(kernels.AsBytes(ids[i]))})
	}
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		adapter := ""
		if name == "lora" {
			adapter = folders["lora"]
		}
		more, err := logits(b, name, map[bool]string{false: folders[name], true: folders["base"]}[adapter != ""], adapter, ids)
		if err != nil {
			return err
		}
		entries = append(entries, more...)
	}
	return safetensors.Write(filepath.Join(out, "logits.safetensors"), map[string]string{"prompts": string(text)}, entries)
}

// logits are F32 (tokens, vocabulary) for each prompt, at all of its positions.
func logits(b kernels.Backend, name, folder, adapter string, ids [][]int32) (entries []safetensors.Entry, err error) {
	weights, err := model.Load(b, folder)
	if err != nil {
		return nil, err
	}
	defer weights.Close()
	m := &model.Model{Weights: weights}
	if adapter != "" {
		if m.Adapter, err = model.LoadAdapter(b, weights.Config, adapter); err != nil {
			return nil, err
		}
		defer m.Adapter.Free()
	}
	longest := 0
	for _, row := range ids {
		longest = max(longest, len(row))
	}
	pass, err := m.NewPass(longest, model.PassOptions{})
	if err != nil {
		return nil, err
	}
	defer pass.Close()
	for i, row := range ids {
		all := make([]int32, len(row))
		for p := range all {
			all[p] = int32(p)
		}
		values := make([]float32, 0, len(row)*weights.Config.VocabSize)
		if err := pass.Logits(model.Pack(row), all, func(_ int, at []float32) { values = append(values, at...) }); err != nil {
			return nil, err
		}
		entries = append(entries, safetensors.Entry{Name: fmt.Sprintf("%s.%d", name, i), DType: safetensors.F32,
			Shape: []int{len(row), weights.Config.VocabSize}, Data: safetensors.Bytes(kernels.AsBytes(values))})
	}
	return entries, nil
}
