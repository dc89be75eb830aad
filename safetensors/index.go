package safetensors

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds the nesting of an index's metadata, which is skipped.
const maxDepth = 16

// maxShards bounds the shards of an index; the numbers in their names have five digits.
const maxShards = 99_999

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
			weightMap, err = readWeightMap(s)
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
	return weightMap, nil
}

// readWeightMap reads the object of tensor → shard. Shards are checked on the way and share their names' memory, so
// that the map takes a small multiple of its text.
func readWeightMap(s *scanner) (map[string]string, error) {
	weightMap, shards := map[string]string{}, map[string]string{}
	err := s.object(func(key []byte) error {
		name := string(key)
		if _, twice := weightMap[name]; twice {
			return s.fail("key %s appears twice", quote(name))
		}
		value, err := s.text()
		if err != nil {
			return err
		}
		shard, known := shards[string(value)]
		if !known {
			shard = string(value)
			if err := checkShardName(shard); err != nil {
				return fmt.Errorf("places tensor %s in %s, %w", quote(name), quote(shard), err)
			}
			if len(shards) == maxShards {
				return s.fail("more than %d shards", maxShards)
			}
			shards[shard] = shard
		}
		weightMap[name] = shard
		return nil
	})
	return weightMap, err
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
