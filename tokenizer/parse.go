package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// file is tokenizer.json.
type file struct {
	Version       *string         `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         bpe             `json:"model"`
}

// bpe is the model of tokenizer.json.
type bpe struct {
	Type                    string     `json:"type"`
	Dropout                 *float64   `json:"dropout"`
	UnkToken                *string    `json:"unk_token"`
	ContinuingSubwordPrefix *string    `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string    `json:"end_of_word_suffix"`
	FuseUnk                 bool       `json:"fuse_unk"` // without an unknown token of no effect
	ByteFallback            bool       `json:"byte_fallback"`
	IgnoreMerges            bool       `json:"ignore_merges"`
	Vocab                   vocabulary `json:"vocab"`
	Merges                  mergeRules `json:"merges"`
}

func (m *bpe) check() error {
	set := func(s *string) bool { return s != nil && *s != "" }
	switch {
	case m.Dropout != nil && *m.Dropout != 0:
		return errors.New("BPE dropout is not supported")
	case set(m.UnkToken), m.ByteFallback, m.IgnoreMerges:
		return errors.New("unk_token, byte_fallback and ignore_merges are not supported")
	case set(m.ContinuingSubwordPrefix), set(m.EndOfWordSuffix):
		return errors.New("continuing_subword_prefix and end_of_word_suffix are not supported")
	}
	return nil
}

// byteLevel is a pre-tokenizer, decoder or post-processor of type ByteLevel. trim_offsets, and as a decoder or
// post-processor all of it, concerns offsets, which are not computed here.
type byteLevel struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"`
	UseRegex       *bool  `json:"use_regex"`
}

// templateProcessing is the post-processor that puts special tokens around a text.
type templateProcessing struct {
	Type   string `json:"type"`
	Single []struct {
		Sequence     *json.RawMessage
		SpecialToken *json.RawMessage
	} `json:"single"`
	Pair          json.RawMessage `json:"pair"`           // for two texts, which are never encoded together here
	SpecialTokens json.RawMessage `json:"special_tokens"` // those that single and pair may name
}

// typeOf is the type of a component of tokenizer.json, "null" for one that is absent.
func typeOf(component json.RawMessage) string {
	if isNull(component) {
		return "null"
	}
	var c struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(component, &c) != nil {
		return ""
	}
	return c.Type
}

func isNull(value json.RawMessage) bool { return value == nil || string(value) == "null" }

// Parse reads the text of a tokenizer.json. What this package would encode or decode otherwise than the tokenizers library
// is refused, and so is a key that it does not know.
func Parse(data []byte) (*Tokenizer, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not a tokenizer: it is not valid UTF-8")
	}
	var f file
	err := strict(data, &f)
	m := &f.Model
	if m.Type != "BPE" && m.Type != "" {
		return nil, fmt.Errorf("model type %.60q is not supported, only BPE", m.Type) // rather than for the first of its keys
	}
	if err != nil {
		return nil, fmt.Errorf("not a tokenizer: %w", err)
	}
	switch {
	case m.Vocab == nil:
		return nil, errors.New("not a tokenizer: it has no model with a vocab")
	case f.Version != nil && *f.Version != "1.0":
		return nil, fmt.Errorf("version %.60q is not supported, only 1.0", *f.Version)
	case !isNull(f.Truncation), !isNull(f.Padding):
		return nil, errors.New("truncation and padding are not supported; set both to null, the length is cut by max_length")
	case !isNull(f.Normalizer):
		return nil, fmt.Errorf("normalizer %.60q is not supported, only null", typeOf(f.Normalizer))
	}
	if err := f.checkPreTokenizer(); err != nil {
		return nil, err
	}
	if err := f.checkDecoder(); err != nil {
		return nil, err
	}
	if err := f.checkPostProcessor(); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return build(m.Vocab, m.Merges, f.AddedTokens)
}

func (f *file) checkPreTokenizer() error {
	if kind := typeOf(f.PreTokenizer); kind != "ByteLevel" {
		return fmt.Errorf("pre_tokenizer %.60q is not supported, only ByteLevel", kind)
	}
	var b byteLevel
	if err := strict(f.PreTokenizer, &b); err != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	switch {
	case b.AddPrefixSpace:
		return errors.New("pre_tokenizer add_prefix_space true is not supported")
	case b.UseRegex != nil && !*b.UseRegex:
		return errors.New("pre_tokenizer use_regex false is not supported")
	}
	return nil
}

func (f *file) checkDecoder() error {
	if kind := typeOf(f.Decoder); kind != "ByteLevel" {
		return fmt.Errorf("decoder %.60q is not supported, only ByteLevel", kind)
	}
	if err := strict(f.Decoder, new(byteLevel)); err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	return nil
}

func (f *file) checkPostProcessor() error {
	var err error
	switch kind := typeOf(f.PostProcessor); kind {
	case "null":
	case "ByteLevel":
		err = strict(f.PostProcessor, new(byteLevel))
	case "TemplateProcessing":
		var t templateProcessing
		if err = strict(f.PostProcessor, &t); err == nil && (len(t.Single) != 1 || t.Single[0].Sequence == nil) {
			return errors.New("post_processor TemplateProcessing adds tokens, which is not supported")
		}
	default:
		return fmt.Errorf("post_processor %.60q is not supported, only ByteLevel and a TemplateProcessing that adds nothing", kind)
	}
	if err != nil {
		return fmt.Errorf("post_processor: %w", err)
	}
	return nil
}
