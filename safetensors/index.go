package safetensors

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds the nesting of an index's metadata, which is skipped.
const maxDepth = 16

// parseIndex reads the text of an index into tensor → shard. Every shard is the plain name of a .safetensors file.
func parseIndex(data []byte) (map[string]string, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("index is not valid UTF-8")
	}
	s := &scanner{data: data}
	var weightMap map[string]string
	var haveMetadata bool
	err := s.object(func(key []byte) error {
		var err error
		switch string(key) {
		case "metadata":
			if haveMetadata {
				return s.fail("metadata appears twice")
			}
			haveMetadata = true
			if s.next() != '{' {
				return s.fail("metadata is not an object")
			}
			err = s.skip(maxDepth)
		case "weight_map":
			if weightMap != nil {
				return s.fail("weight_map appears twice")
			}
			weightMap, err = s.stringMap()
		default:
			err = s.fail("unknown key %s", quote(string(key)))
		}
		return err
	})
	if err == nil && (s.next() != 0 || s.pos != len(data)) {
		err = s.fail("expected the end, found %q", data[s.pos])
	}
	if err != nil {
		return nil, fmt.Errorf("index %w", err)
	}
	if len(weightMap) == 0 {
		return nil, errors.New("index has no weight_map")
	}
	for _, name := range slices.Sorted(maps.Keys(weightMap)) {
		shard := weightMap[name]
		if err := checkShardName(shard); err != nil {
			return nil, fmt.Errorf("index places tensor %s in %s, %w", quote(name), quote(shard), err)
		}
	}
	return weightMap, nil
}

// checkShardName refuses names that lead out of the folder, and files of other formats.
func checkShardName(name string) error {
	switch {
	case isPickle(name):
		return errors.New("a pickle, which can run code when loaded")
	case !filepath.IsLocal(name) || strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("which is not a plain file name")
	case !strings.HasSuffix(name, ".safetensors"):
		return errors.New("which is not a .safetensors file")
	}
	return nil
}
