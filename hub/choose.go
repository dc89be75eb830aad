package hub

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The names of a model's weights.
const (
	wholeWeights = "model.safetensors"
	shardIndex   = "model.safetensors.index.json"
)

var (
	shardName = regexp.MustCompile(`^model-\d{5}-of-\d{5}\.safetensors$`)
	// beside are the files of a model that go with its weights.
	beside = []string{
		"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
		"merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja",
	}
)

// choose is the files of a repository that are of use here, in order of their names. Of a model that is its weights as
// safetensors, once, its configuration, tokenizer and licence; of a dataset its rows.
func choose(r Repo, files []File) ([]File, error) {
	has := func(wanted func(name string) bool) bool {
		return slices.ContainsFunc(files, func(f File) bool { return wanted(f.Name) })
	}
	is := func(name string) func(string) bool { return func(n string) bool { return n == name } }
	var wanted func(name string) bool
	if r.Kind == Dataset {
		number := map[string]int{}
		for _, f := range files {
			number[path.Ext(f.Name)]++
		}
		ext := ".jsonl"
		if number[".parquet"] > number[ext] { // the hub's libraries, too, take what there is most of
			ext = ".parquet"
		}
		if number[ext] == 0 {
			return nil, noRows(has)
		}
		wanted = func(name string) bool { return path.Ext(name) == ext }
	} else {
		weights := func(name string) bool { return path.Ext(name) == ".safetensors" && !strings.Contains(name, "/") }
		switch {
		case has(is(wholeWeights)):
			weights = is(wholeWeights)
		case has(is(shardIndex)) && has(shardName.MatchString):
			weights = func(name string) bool { return name == shardIndex || shardName.MatchString(name) }
		case !has(weights):
			return nil, noWeights(has)
		default: // shards with names of their own
			weights = func(name string) bool {
				return name == shardIndex || path.Ext(name) == ".safetensors" && !strings.Contains(name, "/")
			}
		}
		wanted = func(name string) bool {
			stem, _, _ := strings.Cut(name, ".")
			return weights(name) || slices.Contains(beside, name) || stem == "LICENSE" || stem == "NOTICE"
		}
	}
	var chosen []File
	for _, f := range files {
		if wanted(f.Name) {
			chosen = append(chosen, f)
		}
	}
	slices.SortFunc(chosen, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return chosen, nil
}

func noWeights(has func(func(string) bool) bool) error {
	pickled := func(name string) bool {
		return slices.Contains([]string{".bin", ".pt", ".pth", ".ckpt"}, path.Ext(name))
	}
	if has(pickled) {
		return errors.New("its weights are pickles only, which can run code when they are read; choose a model or revision with .safetensors files")
	}
	return errors.New("it has no .safetensors file; choose a model with weights in that format")
}

func noRows(has func(func(string) bool) bool) error {
	for _, ext := range []string{".json", ".csv"} {
		if has(func(name string) bool { return path.Ext(name) == ext }) {
			return fmt.Errorf("its rows are in %s files, and only .jsonl and .parquet are read; turn them into a .jsonl file and name that in dataset.name", ext)
		}
	}
	return errors.New("it has no .jsonl or .parquet file; choose a dataset with rows in that format")
}
