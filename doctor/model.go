package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quartet/console"
	"quartet/model"
	"quartet/safetensors"
	"quartet/tokenizer"
)

// settings is what a model's config.json says, as far as any loader needs it.
type settings struct {
	ModelType    string `json:"model_type"`
	TorchDType   string `json:"torch_dtype"`
	DType        string `json:"dtype"`
	Quantization *struct {
		Method    string `json:"quant_method"`
		In4Bit    bool   `json:"load_in_4bit"`
		QuantType string `json:"bnb_4bit_quant_type"`
	} `json:"quantization_config"`
}

// model examines a model folder.
func (x *exam) model(dir string, names []string) {
	x.r.Kind = Model
	s, config := x.modelConfig(dir, names)
	all := []Library{Transformers, Quartet}
	if s.Quantization != nil && s.Quantization.Method == "bitsandbytes" {
		x.r.Kind, all = FourBit, append(all, Bitsandbytes)
	}
	x.files(dir, names, all)
	ck := x.weights(dir, names, all)
	if ck != nil {
		defer ck.Close()
		x.r.About = about(s, config, ck)
		if s.ModelType != "" {
			x.tensors(ck, s, config, all)
		}
		if x.Deep {
			x.values(ck)
		}
	}
	x.tokenizer(dir, names, config)
	x.judge(all...)
}

// modelConfig reads config.json, as any loader does and as this program does; the latter is nil where it refuses it.
func (x *exam) modelConfig(dir string, names []string) (s settings, c *model.Config) {
	all := []Library{Transformers, Bitsandbytes, Quartet}
	if !slices.Contains(names, configName) {
		x.fail(configName, all, "missing; a model folder needs it: download it beside the weights")
		return s, nil
	}
	path := filepath.Join(dir, configName)
	data, err := readSmall(path)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	switch {
	case err != nil && len(data) > 0 && !json.Valid(data):
		x.fail(configName, all, "not JSON (%.100s); download it again", err)
		return s, nil
	case err != nil:
		x.fail(configName, all, "%.100s; download it again", err)
		return s, nil
	case s.ModelType == "":
		x.fail(configName, all, "model_type is missing, so no loader knows the architecture; is it a model's config.json?")
		return s, nil
	}
	config, err := model.ReadConfig(dir)
	if err == nil {
		if config.EOS < 0 {
			x.warn(configName, "eos_token_id is missing, there and in generation_config.json, so that no answer ends; add it")
		}
		return s, &config
	}
	stops := []Library{Quartet}
	if s.ModelType == "mixformer-sequential" || s.ModelType == "phi-msft" {
		stops = append(stops, Transformers)
	}
	x.fail(configName, stops, "%s", within(err, "read", path))
	return s, nil
}

// weights opens the folder's weights, or says of each file what is wrong with it.
func (x *exam) weights(dir string, names []string, all []Library) *safetensors.Checkpoint {
	var files []string
	switch has := func(name string) bool { return slices.Contains(names, name) }; {
	case has(singleName):
		files = []string{singleName}
		if has(indexName) {
			x.note(indexName, "not read, because model.safetensors is there; remove the one that is not wanted")
		}
	case has(indexName):
		weightMap, err := safetensors.ReadIndex(filepath.Join(dir, indexName))
		if err != nil {
			x.fail(indexName, all, "%s", err)
			return nil
		}
		var missing []string
		for _, shard := range weightMap {
			if !slices.Contains(files, shard) {
				files = append(files, shard)
			}
		}
		slices.Sort(files)
		for _, shard := range files {
			if !slices.Contains(names, shard) {
				missing = append(missing, shard)
			}
		}
		if len(missing) > 0 {
			x.fail(indexName, all, "%d of %d shards are missing: %s; download them", len(missing), len(files), some(missing))
			files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(missing, f) })
		}
	default:
		x.noWeights(names, all)
		return nil
	}
	var unread []string
	for _, name := range names {
		if isWeights(name) && !slices.Contains(files, name) {
			unread = append(unread, name)
		}
	}
	if len(unread) > 0 {
		x.warn("", "%s: no loader reads what the index does not name; remove it, or download the index it belongs to", some(unread))
	}
	for _, name := range files {
		x.open(filepath.Join(dir, name), name, all)
	}
	if slices.ContainsFunc(x.r.Findings, func(f Finding) bool {
		return f.Level == Error && (isWeights(f.Where) || f.Where == indexName)
	}) {
		return nil
	}
	ck, err := safetensors.OpenFolder(dir)
	if err != nil {
		x.fail("", all, "%s", strings.TrimPrefix(err.Error(), "open "+dir+"/"))
		return nil
	}
	return ck
}

// noWeights says what lies in a folder instead of safetensors weights that a loader finds.
func (x *exam) noWeights(names []string, all []Library) {
	var shards, pickles []string
	for _, name := range names {
		switch {
		case isWeights(name):
			shards = append(shards, name)
		case isPickle(name):
			pickles = append(pickles, name)
		}
	}
	switch {
	case len(shards) > 0:
		x.fail("", all, "%s, but neither %s nor %s; download the index too, or rename a single file", some(shards), singleName, indexName)
	case len(pickles) > 0:
		x.fail(some(pickles), []Library{Quartet}, "only pickles, which can run code when they are loaded; convert them with safetensors' convert.py or download the .safetensors files (transformers loads them with torch 2.6 or later)")
	default:
		x.fail("", all, "no weights: neither %s nor %s; download them", singleName, indexName)
	}
}

// tokenizer examines the folder's tokenizer, if there must be one.
func (x *exam) tokenizer(dir string, names []string, c *model.Config) {
	needed := []string{"tokenizer.json", "vocab.json", "tokenizer.model"}
	if !slices.ContainsFunc(needed, func(n string) bool { return slices.Contains(names, n) }) {
		x.fail("tokenizer.json", []Library{Quartet}, "the tokenizer is missing (AutoTokenizer fails too); copy tokenizer.json and tokenizer_config.json from the base model")
		return
	}
	t, err := tokenizer.Load(dir)
	if err != nil {
		x.fail("tokenizer.json", []Library{Quartet}, "%s", strings.ReplaceAll(err.Error(), dir+"/", ""))
		return
	}
	if !slices.Contains(names, "tokenizer_config.json") {
		x.warn("tokenizer_config.json", "missing, so that AutoTokenizer guesses the class and the end-of-text token; copy it from the base model")
	}
	if c == nil {
		return
	}
	if t.Len() > c.VocabSize {
		x.fail("tokenizer.json", []Library{Quartet}, "has ids up to %d, but the embedding has %d rows; it is another model's tokenizer", t.Len()-1, c.VocabSize)
	}
	if c.EOS >= 0 && !t.Has(c.EOS) {
		x.warn("tokenizer.json", "has no token for eos_token_id %d of config.json; is it another model's tokenizer?", c.EOS)
	}
}

// about is a model in a line.
func about(s settings, c *model.Config, ck *safetensors.Checkpoint) string {
	text := cmp.Or(s.ModelType, "of an unknown architecture")
	if c != nil {
		text = fmt.Sprintf("Phi, %d layers, %s parameters", c.Layers, count(c.Parameters()))
	}
	if types := typesOf(ck, false); types != "" {
		text += ", " + types
	}
	var size int64
	for _, path := range ck.Files() {
		if info, err := os.Stat(path); err == nil {
			size += info.Size()
		}
	}
	files := "1 file"
	if n := len(ck.Files()); n > 1 {
		files = fmt.Sprintf("%d files", n)
	}
	return text + ", " + console.Bytes(size) + " in " + files
}

// count is a number of parameters for people.
func count(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f B", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2f M", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}

// maxSettings bounds a file of settings in bytes.
const maxSettings = 4 << 20

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	if !info.Mode().IsRegular() || info.Size() > maxSettings {
		return nil, fmt.Errorf("not a file of at most %d bytes", maxSettings)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	return data, nil
}

// within is an error's text without the verb and the path that it begins with.
func within(err error, verb, path string) string {
	return strings.TrimPrefix(err.Error(), verb+" "+path+": ")
}
