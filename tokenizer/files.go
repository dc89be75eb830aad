package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Load reads the tokenizer of a model folder: tokenizer.json, or without one vocab.json and merges.txt with
// added_tokens.json, special_tokens_map.json and tokenizer_config.json. Errors name the file.
func Load(dir string) (*Tokenizer, error) {
	read := func(name string) ([]byte, error) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err == nil && !utf8.Valid(data) {
			err = fmt.Errorf("read %s: it is not valid UTF-8", filepath.Join(dir, name))
		}
		return data, err
	}
	names := []string{"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"}
	found := map[string][]byte{}
	for i, name := range names {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		found[name] = data
		if i == 1 && found["tokenizer.json"] != nil {
			break
		}
	}
	config, err := parseConfig(found["tokenizer_config.json"])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "tokenizer_config.json"), err)
	}
	if data := found["tokenizer.json"]; data != nil {
		t, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "tokenizer.json"), err)
		}
		return t, nil
	}
	switch {
	case found["vocab.json"] == nil:
		return nil, fmt.Errorf("read the tokenizer of %s: there is neither tokenizer.json nor vocab.json with merges.txt; copy them from the base model", dir)
	case found["merges.txt"] == nil:
		return nil, fmt.Errorf("read the tokenizer of %s: vocab.json needs merges.txt beside it", dir)
	}
	t, err := parseFiles(found, config)
	if err != nil {
		return nil, fmt.Errorf("read the tokenizer of %s: %w", dir, err)
	}
	return t, nil
}

// config is what tokenizer_config.json says about ids.
type config struct {
	Class   string                `json:"tokenizer_class"`
	Decoder map[string]addedToken `json:"added_tokens_decoder"`
	Prefix  bool                  `json:"add_prefix_space"`
	AddBOS  bool                  `json:"add_bos_token"`
	AddEOS  bool                  `json:"add_eos_token"`
	specialTokens
}

// specialTokens is special_tokens_map.json.
type specialTokens struct {
	BOS  namedToken   `json:"bos_token"`
	EOS  namedToken   `json:"eos_token"`
	Unk  namedToken   `json:"unk_token"`
	Pad  namedToken   `json:"pad_token"`
	Sep  namedToken   `json:"sep_token"`
	Cls  namedToken   `json:"cls_token"`
	Mask namedToken   `json:"mask_token"`
	More []namedToken `json:"additional_special_tokens"`
}

// all is those that are named.
func (s *specialTokens) all() []namedToken {
	all := append([]namedToken{s.BOS, s.EOS, s.Unk, s.Pad, s.Sep, s.Cls, s.Mask}, s.More...)
	return slices.DeleteFunc(all, func(n namedToken) bool { return n.Content == "" })
}

// namedToken is a token without its id, written "text" or {"content": "text", …}.
type namedToken struct{ addedToken }

// UnmarshalJSON reads either spelling.
func (n *namedToken) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte{'"'}) {
		return json.Unmarshal(data, &n.Content)
	}
	return json.Unmarshal(data, &n.addedToken)
}

// parseConfig reads tokenizer_config.json, nil for none.
func parseConfig(data []byte) (config, error) {
	var c config
	if data == nil {
		return c, nil
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, plainly(err)
	}
	if c.Prefix || c.AddBOS || c.AddEOS {
		return c, errors.New("add_prefix_space, add_bos_token and add_eos_token are not supported")
	}
	return c, nil
}

// classes are the tokenizers that vocab.json and merges.txt may be of. Others with these files split text differently or
// add tokens.
var classes = []string{"", "GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "CodeGenTokenizerFast"}

// endOfText is the special token of the classes where no file names one.
const endOfText = "<|endoftext|>"

// parseFiles makes a tokenizer of the files from before tokenizer.json.
func parseFiles(found map[string][]byte, c config) (*Tokenizer, error) {
	if !slices.Contains(classes, c.Class) {
		return nil, fmt.Errorf("tokenizer_config.json: vocab.json and merges.txt of a %.60q are not supported, only of %s; save its tokenizer.json", c.Class, strings.Join(classes[1:], ", "))
	}
	var vocab vocabulary
	if err := json.Unmarshal(found["vocab.json"], &vocab); err != nil {
		return nil, fmt.Errorf("vocab.json: %w", plainly(err))
	}
	rules, err := parseMerges(string(found["merges.txt"]))
	if err != nil {
		return nil, err
	}
	tokens := map[string]addedToken{}
	for key, a := range c.Decoder {
		if a.ID, err = strconv.ParseInt(key, 10, 64); err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: token id %.60q is no number", key)
		}
		if other, twice := tokens[a.Content]; twice {
			return nil, fmt.Errorf("tokenizer_config.json: token %.60q has the ids %d and %d", a.Content, min(a.ID, other.ID), max(a.ID, other.ID))
		}
		tokens[a.Content] = a
	}
	var more vocabulary
	if data := found["added_tokens.json"]; data != nil {
		if err := json.Unmarshal(data, &more); err != nil {
			return nil, fmt.Errorf("added_tokens.json: %w", plainly(err))
		}
	}
	for _, e := range more {
		if _, known := tokens[e.token]; !known {
			tokens[e.token] = addedToken{ID: e.id, Content: e.token}
		}
	}
	special := c.specialTokens.all()
	if data := found["special_tokens_map.json"]; data != nil {
		var s specialTokens
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, fmt.Errorf("special_tokens_map.json: %w", plainly(err))
		}
		special = append(special, s.all()...)
	}
	inVocab := map[string]int64{}
	for _, e := range vocab {
		inVocab[e.token] = e.id
	}
	if _, ok := inVocab[endOfText]; ok && len(special) == 0 {
		special = append(special, namedToken{addedToken{Content: endOfText}})
	}
	for _, s := range special {
		a, known := tokens[s.Content]
		if !known {
			a = s.addedToken
			if a.ID, known = inVocab[s.Content]; !known {
				return nil, fmt.Errorf("special token %.60q has no id in vocab.json, added_tokens.json or tokenizer_config.json", s.Content)
			}
		}
		a.Special = true
		tokens[s.Content] = a
	}
	list := make([]addedToken, 0, len(tokens))
	for _, a := range tokens {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b addedToken) int { return int(a.ID - b.ID) })
	return build(vocab, rules, list)
}

// parseMerges reads merges.txt: a pair of tokens a line, behind a line with the version.
func parseMerges(text string) (mergeRules, error) {
	var rules mergeRules
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || n == 1 && strings.HasPrefix(line, "#version") {
			continue
		}
		r, ok := splitMerge(line)
		if !ok {
			return nil, fmt.Errorf("merges.txt:%d: %.60q is not two tokens", n, line)
		}
		rules = append(rules, r)
	}
	return rules, nil
}
