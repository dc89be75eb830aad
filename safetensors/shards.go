package safetensors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ptMetadata is what transformers demands of a file's metadata.
var ptMetadata = map[string]string{"format": "pt"}

// WriteFolder writes the entries into the existing folder dir as a checkpoint: model.safetensors where they fit into
// shardBytes, else shards of at most that size (a larger tensor has a shard of its own), filled in the order given, and
// then the index. The folder must hold no checkpoint yet, and holds none after an error.
func WriteFolder(dir string, entries []Entry, shardBytes int64) error {
	if err := holdsNone(dir); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	shards, total, err := split(entries, shardBytes)
	if err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	if len(shards) <= 1 {
		return Write(filepath.Join(dir, singleName), ptMetadata, entries)
	}
	weightMap := make(map[string]string, len(entries))
	var written []string
	for i, shard := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		for _, e := range shard {
			weightMap[e.Name] = name
		}
		path := filepath.Join(dir, name)
		if err = Write(path, ptMetadata, shard); err != nil {
			break
		}
		written = append(written, path)
	}
	if err == nil {
		err = writeIndex(filepath.Join(dir, indexName), total, weightMap)
	}
	if err != nil {
		for _, path := range written {
			os.Remove(path)
		}
	}
	return err
}

// holdsNone refuses a folder that holds weights: the old would hide the new or mix with them.
func holdsNone(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return reason(err, "folder")
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "model") && strings.Contains(name, ".safetensors") {
			return fmt.Errorf("folder already holds %s; choose an empty folder", quote(name))
		}
	}
	return nil
}

// split deals the entries out to shards as huggingface_hub does, and adds up their bytes. A name may appear once.
func split(entries []Entry, shardBytes int64) (shards [][]Entry, total int64, err error) {
	seen := make(map[string]bool, len(entries))
	var current []Entry
	var filled int64
	for _, e := range entries {
		n, err := e.check()
		if err == nil && seen[e.Name] {
			err = errTwice
		}
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %s: %w", quote(e.Name), err)
		}
		seen[e.Name] = true
		size := int64(n)
		total += size
		if size > shardBytes {
			shards = append(shards, []Entry{e})
			continue
		}
		if filled+size > shardBytes {
			shards = append(shards, current)
			current, filled = nil, 0
		}
		current, filled = append(current, e), filled+size
	}
	if len(current) > 0 {
		shards = append(shards, current)
	}
	return shards, total, nil
}

func writeIndex(path string, total int64, weightMap map[string]string) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	index := map[string]any{"metadata": map[string]int64{"total_size": total}, "weight_map": weightMap}
	if err := enc.Encode(index); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, int64(text.Len()), func(w io.Writer) error {
		_, err := w.Write(text.Bytes())
		return err
	})
}
