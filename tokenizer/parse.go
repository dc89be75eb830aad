package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxID bounds token ids, far above any vocabulary.
const maxID = 1 << 24

// Load reads the tokenizer of a model folder: tokenizer.json, or without one vocab.json and merges.txt with
// added_tokens.json and tokenizer_config.json.
func Load(dir string) (*Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	data, err := os.ReadFile(path)
	if err == nil {
		t, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return t, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	vocab, err := os.ReadFile(filepath.Join(dir, "vocab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the tokenizer of %s: there is neither tokenizer.json nor vocab.json with merges.txt; copy them from the base model", dir)
	}
	if err != nil {
		return nil, err
	}
	merges, err := os.ReadFile(filepath.Join(dir, "merges.txt"))
	if err != nil {
		return nil, fmt.Errorf("read the tokenizer of %s: vocab.json needs merges.txt beside it: %w", dir, err)
	}
	extra := map[string][]byte{}
	for _, name := range []string{"added_tokens.json", "tokenizer_config.json"} {
		if extra[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	t, err := parseFiles(vocab, merges, extra["added_tokens.json"], extra["tokenizer_config.json"])
	if err != nil {
		return nil, fmt.Errorf("read the tokenizer of %s: %w", dir, err)
	}
	return t, nil
}

// file is tokenizer.json.
type file struct {
	AddedTokens   []addedToken `json:"added_tokens"`
	Normalizer    *component   `json:"normalizer"`
	PreTokenizer  *component   `json:"pre_tokenizer"`
	PostProcessor *component   `json:"post_processor"`
	Decoder       *component   `json:"decoder"`
	Model         struct {
		Type                    string           `json:"type"`
		Dropout                 *float64         `json:"dropout"`
		UnkToken                *string          `json:"unk_token"`
		ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
		EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
		ByteFallback            bool             `json:"byte_fallback"`
		IgnoreMerges            bool             `json:"ignore_merges"`
		Vocab                   map[string]int64 `json:"vocab"`
		Merges                  []mergeRule      `json:"merges"`
	} `json:"model"`
}

type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Special    bool   `json:"special"`
}

// component is a normalizer, pre-tokenizer, post-processor or decoder.
type component struct {
	Type           string            `json:"type"`
	AddPrefixSpace bool              `json:"add_prefix_space"`
	UseRegex       *bool             `json:"use_regex"`
	Single         []json.RawMessage `json:"single"`
}

// mergeRule is a merge, written "left right" or ["left", "right"].
type mergeRule [2]string

// UnmarshalJSON reads either spelling.
func (m *mergeRule) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var both []string
		if err := json.Unmarshal(data, &both); err != nil {
			return err
		}
		if len(both) != 2 {
			return fmt.Errorf("a merge of %d tokens, not two", len(both))
		}
		*m = mergeRule(both)
		return nil
	}
	var line string
	if err := json.Unmarshal(data, &line); err != nil {
		return err
	}
	left, right, ok := strings.Cut(line, " ")
	if !ok || strings.Contains(right, " ") {
		return fmt.Errorf("merge %q is not two tokens", line)
	}
	*m = mergeRule{left, right}
	return nil
}

// Parse reads the text of a tokenizer.json. What this package would encode otherwise than the tokenizers library is refused.
func Parse(data []byte) (*Tokenizer, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("not a tokenizer: %w", err)
	}
	m := &f.Model
	switch {
	case m.Type != "BPE" && !(m.Type == "" && m.Vocab != nil):
		return nil, fmt.Errorf("model type %q is not supported, only BPE", m.Type)
	case f.Normalizer != nil:
		return nil, fmt.Errorf("normalizer %q is not supported, only null", f.Normalizer.Type)
	case f.PreTokenizer == nil || f.PreTokenizer.Type != "ByteLevel":
		return nil, errors.New("pre_tokenizer is not ByteLevel, the only one supported")
	case f.PreTokenizer.AddPrefixSpace:
		return nil, errors.New("pre_tokenizer add_prefix_space true is not supported")
	case f.PreTokenizer.UseRegex != nil && !*f.PreTokenizer.UseRegex:
		return nil, errors.New("pre_tokenizer use_regex false is not supported")
	case f.Decoder == nil || f.Decoder.Type != "ByteLevel":
		return nil, errors.New("decoder is not ByteLevel, the only one supported")
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, errors.New("BPE dropout is not supported")
	case m.UnkToken != nil && *m.UnkToken != "", m.ByteFallback, m.IgnoreMerges:
		return nil, errors.New("unk_token, byte_fallback and ignore_merges are not supported")
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "", m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return nil, errors.New("continuing_subword_prefix and end_of_word_suffix are not supported")
	}
	if p := f.PostProcessor; p != nil && p.Type != "ByteLevel" && !(p.Type == "TemplateProcessing" && len(p.Single) == 1 && bytes.Contains(p.Single[0], []byte(`"Sequence"`))) {
		return nil, fmt.Errorf("post_processor %q adds tokens, which is not supported", p.Type)
	}
	return build(m.Vocab, m.Merges, f.AddedTokens)
}

// parseFiles reads a slow tokenizer's files; added and config may be nil.
func parseFiles(vocab, merges, addedFile, config []byte) (*Tokenizer, error) {
	var v map[string]int64
	if err := json.Unmarshal(vocab, &v); err != nil {
		return nil, fmt.Errorf("vocab.json: %w", err)
	}
	var rules []mergeRule
	for n, line := range strings.Split(string(merges), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || n == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(right, " ") {
			return nil, fmt.Errorf("merges.txt:%d: %q is not two tokens", n+1, line)
		}
		rules = append(rules, mergeRule{left, right})
	}
	var addedTokens []addedToken
	seen := map[string]bool{}
	if config != nil {
		var c struct {
			Decoder map[string]addedToken `json:"added_tokens_decoder"`
			Prefix  bool                  `json:"add_prefix_space"`
			BOS     bool                  `json:"add_bos_token"`
			EOS     bool                  `json:"add_eos_token"`
		}
		if err := json.Unmarshal(config, &c); err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: %w", err)
		}
		if c.Prefix || c.BOS || c.EOS {
			return nil, errors.New("tokenizer_config.json: add_prefix_space, add_bos_token and add_eos_token are not supported")
		}
		for key, a := range c.Decoder {
			id, err := strconv.ParseInt(key, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("tokenizer_config.json: token id %q is no number", key)
			}
			a.ID = id
			addedTokens, seen[a.Content] = append(addedTokens, a), true
		}
	}
	if addedFile != nil {
		var a map[string]int64
		if err := json.Unmarshal(addedFile, &a); err != nil {
			return nil, fmt.Errorf("added_tokens.json: %w", err)
		}
		for content, id := range a {
			if !seen[content] {
				addedTokens, seen[content] = append(addedTokens, addedToken{ID: id, Content: content}), true
			}
		}
	}
	const eot = "<|endoftext|>"
	if id, ok := v[eot]; ok && !seen[eot] {
		addedTokens = append(addedTokens, addedToken{ID: id, Content: eot, Special: true})
	}
	return build(v, rules, addedTokens)
}

// build checks the vocabulary, the merges and the added tokens, and makes a tokenizer of them.
func build(vocab map[string]int64, rules []mergeRule, addedTokens []addedToken) (*Tokenizer, error) {
	if len(vocab) == 0 {
		return nil, errors.New("the vocabulary is empty")
	}
	t := &Tokenizer{tokens: make(map[int32]string, len(vocab)), names: make(map[string]int32, len(vocab)),
		special: map[int32]bool{}, merges: make(map[pair]merge, len(rules))}
	for token, id := range vocab {
		if id < 0 || id >= maxID {
			return nil, fmt.Errorf("token %q has id %d, which is not within 0 and %d", token, id, maxID-1)
		}
		if _, taken := t.tokens[int32(id)]; taken {
			return nil, fmt.Errorf("two tokens have id %d", id)
		}
		t.tokens[int32(id)], t.names[token] = tokenBytes(token), int32(id)
	}
	for rank, r := range rules {
		left, okLeft := t.names[r[0]]
		right, okRight := t.names[r[1]]
		id, ok := t.names[r[0]+r[1]]
		if !okLeft || !okRight || !ok {
			return nil, fmt.Errorf("merge %d, %q with %q: not all of these and their union are in the vocabulary", rank, r[0], r[1])
		}
		if _, twice := t.merges[pair{left, right}]; !twice {
			t.merges[pair{left, right}] = merge{int32(rank), id}
		}
	}
	var list []added
	for _, a := range addedTokens {
		switch {
		case a.Content == "":
			return nil, fmt.Errorf("added token %d is empty", a.ID)
		case a.ID < 0 || a.ID >= maxID:
			return nil, fmt.Errorf("added token %q has id %d, which is not within 0 and %d", a.Content, a.ID, maxID-1)
		case a.SingleWord || a.LStrip || a.RStrip:
			return nil, fmt.Errorf("added token %q: single_word, lstrip and rstrip are not supported", a.Content)
		}
		id := int32(a.ID)
		if known, ok := t.names[a.Content]; ok && known != id {
			return nil, fmt.Errorf("added token %q has id %d, but the vocabulary says %d", a.Content, id, known)
		}
		if _, inVocab := vocab[a.Content]; !inVocab {
			if _, taken := t.tokens[id]; taken {
				return nil, fmt.Errorf("two tokens have id %d", id)
			}
		}
		t.tokens[id], t.names[a.Content], t.special[id] = a.Content, id, a.Special
		list = append(list, added{a.Content, id})
	}
	t.finish(list)
	return t, nil
}
