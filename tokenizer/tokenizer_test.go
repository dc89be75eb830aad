package tokenizer

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// goldenDir is the reference's tokenizer folder.
func goldenDir() string {
	if dir := os.Getenv("QUARTET_GOLDEN"); dir != "" {
		return filepath.Join(dir, "tokenizer")
	}
	return "../testdata/golden/tokenizer"
}

func load(t testing.TB) *Tokenizer {
	t.Helper()
	if _, err := os.Stat(goldenDir()); err != nil && os.Getenv("QUARTET_GOLDEN") != "" {
		t.Skipf("MISSING: %v", err)
	}
	tok, err := Load(goldenDir())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestGoldenTokenizer(t *testing.T) {
	tok := load(t)
	data, err := os.ReadFile(filepath.Join(goldenDir(), "tokenizer_cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Text    string
		IDs     []int32
		Decoded string
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if got := tok.Encode(c.Text); !slices.Equal(got, c.IDs) {
			t.Errorf("%q encodes to %v, not %v", c.Text, got, c.IDs)
		}
		if got := tok.Decode(c.IDs, false); got != c.Decoded {
			t.Errorf("%v decodes to %q, not %q", c.IDs, got, c.Decoded)
		}
		s := tok.Stream(false)
		var streamed strings.Builder
		for _, id := range c.IDs {
			piece := s.Push(id)
			if !utf8.ValidString(piece) {
				t.Errorf("%v streams %q, which is not UTF-8", c.IDs, piece)
			}
			streamed.WriteString(piece)
		}
		if got := streamed.String() + s.Flush(); got != c.Decoded {
			t.Errorf("%v streams %q, not %q", c.IDs, got, c.Decoded)
		}
	}
}

func TestPieces(t *testing.T) {
	for text, want := range map[string][]string{
		"I'll go":      {"I", "'ll", " go"},
		"'S 'sx":       {"'", "S", " '", "sx"},
		"a  b\n\n c ":  {"a", " ", " b", "\n\n", " c", " "},
		"x=1.5e-3":     {"x", "=", "1", ".", "5", "e", "-", "3"},
		"été 12½ !?":   {"été", " 12½", " !?"},
		"a\u00a0b":     {"a", "\u00a0", "b"},
		"e\u0301x":     {"e", "\u0301", "x"},
		"\u200b\u001c": {"\u200b\u001c"},
		"tab\t\tx":     {"tab", "\t", "\t", "x"},
		"end   ":       {"end", "   "},
	} {
		var got []string
		for rest := text; rest != ""; {
			n := pieceEnd(rest)
			got, rest = append(got, rest[:n]), rest[n:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q splits into %q, not %q", text, got, want)
		}
	}
}

func TestSpecialTokens(t *testing.T) {
	tok := load(t)
	eos, ok := tok.ID("<|endoftext|>")
	if !ok || !tok.IsSpecial(eos) || !tok.Has(eos) || tok.Has(int32(tok.Len())) || tok.Has(-1) {
		t.Fatalf("end-of-text is %d, %v", eos, ok)
	}
	ids := tok.Encode("a<|endoftext|>b")
	if got := tok.Decode(ids, true); got != "ab" || len(ids) != 3 {
		t.Errorf("%v decodes to %q without special tokens", ids, got)
	}
}

func TestIllFormedBytes(t *testing.T) {
	for in, want := range map[string]string{
		"a\xffb":               "a\ufffdb",
		"\xe2\x82":             "\ufffd",
		"\xe2\x82x":            "\ufffdx",
		"\xf0\x9f\x98\xf0\x9f": "\ufffd\ufffd",
		"\xe0\x80\x80":         "\ufffd\ufffd\ufffd",
		"\xed\xa0\x80":         "\ufffd\ufffd\ufffd",
		"\xc3\xa9":             "é",
	} {
		if got := lossy(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}

const tiny = `{"added_tokens":[{"id":0,"content":"<e>","special":true}],"normalizer":null,
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
"model":{"type":"BPE","vocab":{"<e>":0,"a":1,"b":2,"ab":3},"merges":[["a","b"]]}}`

func TestWhatWouldEncodeDifferentlyIsRefused(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"normalizer":null`, `"normalizer":{"type":"NFC"}`, `normalizer "NFC" is not supported, only null`},
		{`"BPE"`, `"Unigram"`, `model type "Unigram" is not supported, only BPE`},
		{`"add_prefix_space":false`, `"add_prefix_space":true`, `pre_tokenizer add_prefix_space true is not supported`},
		{`"type":"BPE"`, `"type":"BPE","byte_fallback":true`, `unk_token, byte_fallback and ignore_merges are not supported`},
		{`["a","b"]`, `["a","c"]`, `merge 0, "a" with "c": not all of these and their union are in the vocabulary`},
		{`["a","b"]`, `"a b c"`, `not a tokenizer: merge 0 is not two tokens`},
		{`"b":2`, `"b":1`, `two tokens have id 1`},
		{`"b":2`, `"b":-2`, `token "b" has id -2, which is not within 0 and 16777215`},
		{`"b":2`, `"b":2147483647`, `token "b" has id 2147483647, which is not within 0 and 16777215`},
		{`"id":0,`, `"id":3,`, `added token "<e>" has id 3, but the vocabulary says 0`},
		{`"special":true`, `"lstrip":true`, `added token "<e>": single_word, lstrip and rstrip are not supported`},
		{`"decoder":`, `"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{}},{"Sequence":{}}]},"decoder":`, `post_processor TemplateProcessing adds tokens, which is not supported`},
		{`}}`, `}`, `not a tokenizer: the JSON ends too early`},
		{`"normalizer":null`, `"normalizer":null,,`, `not a tokenizer: invalid character ',' looking for beginning of object key string (byte 77)`},
		{`]]}}`, `]]}} {}`, `not a tokenizer: there is more behind the JSON value`},
		{`"a":1`, "\"\xff\":1", `not a tokenizer: it is not valid UTF-8`},
		{`"a":1`, `"a":"1"`, `not a tokenizer: vocab: the id of token "a" is no whole number`},
		{`"a":1`, `"a":null`, `not a tokenizer: vocab: the id of token "a" is no whole number`},
		{`"a":1`, `"a":99999999999999999999`, `token "a" has id 9223372036854775807, which is not within 0 and 16777215`},
		{`"b":2`, `"a":2`, `token "a" is in the vocabulary twice`},
		{`"BPE"`, `7`, `not a tokenizer: model.type cannot be a JSON number`},
		{`"type":"BPE"`, `"type":"BPE","fold":true`, `not a tokenizer: unknown field "fold"`},
		{`"normalizer":null`, `"normalizer":null,"version":"2.0"`, `version "2.0" is not supported, only 1.0`},
		{`"normalizer":null`, `"normalizer":null,"truncation":{"max_length":3}`, `truncation and padding are not supported; set both to null, the length is cut by max_length`},
		{`{"type":"ByteLevel","add_prefix_space":false}`, `{"type":"Sequence","pretokenizers":[]}`, `pre_tokenizer "Sequence" is not supported, only ByteLevel`},
		{`"add_prefix_space":false`, `"use_regex":false`, `pre_tokenizer use_regex false is not supported`},
		{`"add_prefix_space":false`, `"behavior":1`, `pre_tokenizer: unknown field "behavior"`},
		{`"decoder":{"type":"ByteLevel"},`, ``, `decoder "null" is not supported, only ByteLevel`},
		{`"decoder":`, `"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"Sequence"}}]},"decoder":`, `post_processor TemplateProcessing adds tokens, which is not supported`},
		{`"decoder":`, `"post_processor":{"type":"RobertaProcessing"},"decoder":`, `post_processor "RobertaProcessing" is not supported, only ByteLevel and a TemplateProcessing that adds nothing`},
	} {
		_, err := Parse([]byte(strings.Replace(tiny, c.old, c.new, 1)))
		if err == nil || err.Error() != c.want {
			t.Errorf("with %s: %v, want %s", c.new, err, c.want)
		}
	}
}

// TestHonoured: what is unusual and yet encodes as the tokenizers library does. The ids are that library's.
func TestHonoured(t *testing.T) {
	for _, c := range []struct {
		old, new, text string
		ids            []int32
		decoded        string
	}{
		{`"decoder":`, `"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}},"decoder":`, "ab<e>", []int32{3, 0}, "ab<e>"},
		{`[["a","b"]]`, `["a b", "b a", "a b"]`, "aba", []int32{1, 4}, "aba"}, // of two equal merges the later counts
		{`"special":true}`, `"special":true},{"id":3,"content":"ab","normalized":true},{"id":5,"content":"b<","normalized":false}`, "ab<e>ab", []int32{1, 5, 3}, "ab<ab"},
		{`"special":true}`, `"special":true},{"id":5,"content":"é"}`, "aé", []int32{1, 5}, "a\ufffd"}, // decoded as the vocabulary's spelling of a byte
		{`"special":true}`, `"special":true},{"id":5,"content":"漢"}`, "a漢c", []int32{1, 5}, "a漢"},     // no token for the byte c
	} {
		text := strings.Replace(strings.Replace(tiny, `"ab":3`, `"ab":3,"ba":4`, 1), c.old, c.new, 1)
		tok, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("with %s: %v", c.new, err)
			continue
		}
		if ids := tok.Encode(c.text); !slices.Equal(ids, c.ids) {
			t.Errorf("with %s: %q encodes to %v, not %v", c.new, c.text, ids, c.ids)
		}
		if got := tok.Decode(c.ids, false); got != c.decoded {
			t.Errorf("with %s: %v decodes to %q, not %q", c.new, c.ids, got, c.decoded)
		}
	}
}

// slow are the files from before tokenizer.json of the tokenizer in tiny, with two more added tokens.
var slow = map[string]string{
	"vocab.json":              `{"<e>":0,"a":1,"b":2,"ab":3}`,
	"merges.txt":              "#version: 0.2\r\na b\r\n\n",
	"tokenizer_config.json":   `{"tokenizer_class":"CodeGenTokenizer","added_tokens_decoder":{"0":{"content":"<e>","special":true},"4":{"content":"aa"}}}`,
	"added_tokens.json":       `{"aa":4,"bbb":5}`,
	"special_tokens_map.json": `{"eos_token":"<e>","pad_token":{"content":"bbb","lstrip":false},"unk_token":null}`,
}

// loadSlow loads a folder of the files in slow, with some changed; "" leaves a file out.
func loadSlow(t *testing.T, change map[string]string) (*Tokenizer, error) {
	t.Helper()
	dir := t.TempDir()
	files := maps.Clone(slow)
	maps.Copy(files, change)
	for name, text := range files {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := Load(dir)
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), dir, "DIR"))
	}
	return tok, err
}

func TestSlowFiles(t *testing.T) {
	for _, c := range []struct {
		change  map[string]string
		ids     []int32
		skipped string
	}{
		{nil, []int32{3, 0, 2, 4, 5, 2}, "abbaab"},
		{map[string]string{"special_tokens_map.json": ""}, []int32{3, 0, 2, 4, 5, 2}, "abbaabbbb"},
		{map[string]string{"special_tokens_map.json": `{"additional_special_tokens":["b"]}`}, []int32{1, 2, 0, 2, 4, 2, 2, 2, 2}, "aaa"},
		{map[string]string{"tokenizer_config.json": "", "added_tokens.json": "", "special_tokens_map.json": ""}, []int32{3, 2, 1, 3, 2, 2, 2}, "abbaabbbb"},
	} {
		tok, err := loadSlow(t, c.change)
		if err != nil {
			t.Errorf("%v: %v", c.change, err)
			continue
		}
		ids := tok.Encode("ab<e>baabbbb")
		if got := tok.Decode(ids, true); !slices.Equal(ids, c.ids) || got != c.skipped {
			t.Errorf("%v: encodes to %v, %q without special tokens; want %v, %q", c.change, ids, got, c.ids, c.skipped)
		}
	}
}

func TestEndOfTextIsSpecialByDefault(t *testing.T) {
	tok, err := loadSlow(t, map[string]string{"vocab.json": `{"a":1,"b":2,"ab":3,"<|endoftext|>":4}`, "tokenizer_config.json": "", "added_tokens.json": "", "special_tokens_map.json": ""})
	if err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("a<|endoftext|>b"); !slices.Equal(ids, []int32{1, 4, 2}) || !tok.IsSpecial(4) {
		t.Errorf("encodes to %v", ids)
	}
}

func TestSlowFilesRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"merges.txt", "", `read the tokenizer of DIR: vocab.json needs merges.txt beside it`},
		{"vocab.json", "", `read the tokenizer of DIR: there is neither tokenizer.json nor vocab.json with merges.txt; copy them from the base model`},
		{"vocab.json", "{", `read the tokenizer of DIR: vocab.json: unexpected end of JSON input (byte 1)`},
		{"vocab.json", "[1]", `read the tokenizer of DIR: vocab.json: vocab is not an object of tokens and ids`},
		{"vocab.json", "\xff", `read DIR/vocab.json: it is not valid UTF-8`},
		{"merges.txt", "a b\na b ab\n", `read the tokenizer of DIR: merges.txt:2: "a b ab" is not two tokens`},
		{"merges.txt", "b a\n", `read the tokenizer of DIR: merge 0, "b" with "a": not all of these and their union are in the vocabulary`},
		{"added_tokens.json", `{"bbb":5,"cc":-4}`, `read the tokenizer of DIR: added token "cc" has id -4, which is not within 0 and 16777215`},
		{"added_tokens.json", `{"bbb":5,"cc":3}`, `read the tokenizer of DIR: two tokens have id 3`},
		{"special_tokens_map.json", `{"eos_token":"<s>"}`, `read the tokenizer of DIR: special token "<s>" has no id in vocab.json, added_tokens.json or tokenizer_config.json`},
		{"special_tokens_map.json", `{"eos_token":{"content":"ab","rstrip":true}}`, `read the tokenizer of DIR: added token "ab": single_word, lstrip and rstrip are not supported`},
		{"special_tokens_map.json", `{"eos_token":7}`, `read the tokenizer of DIR: special_tokens_map.json: eos_token cannot be a JSON number`},
		{"tokenizer_config.json", `{"tokenizer_class":"Qwen2Tokenizer"}`, `read the tokenizer of DIR: tokenizer_config.json: vocab.json and merges.txt of a "Qwen2Tokenizer" are not supported, only of GPT2Tokenizer, GPT2TokenizerFast, CodeGenTokenizer, CodeGenTokenizerFast; save its tokenizer.json`},
		{"tokenizer_config.json", `{"added_tokens_decoder":{"x":{"content":"aa"}}}`, `read the tokenizer of DIR: tokenizer_config.json: token id "x" is no number`},
		{"tokenizer_config.json", `{"added_tokens_decoder":{"4":{"content":"aa"},"6":{"content":"aa"}}}`, `read the tokenizer of DIR: tokenizer_config.json: token "aa" has the ids 4 and 6`},
		{"tokenizer_config.json", `{"add_bos_token":true}`, `read DIR/tokenizer_config.json: add_prefix_space, add_bos_token and add_eos_token are not supported`},
	} {
		if _, err := loadSlow(t, map[string]string{c.name: c.text}); err == nil || err.Error() != c.want {
			t.Errorf("%s %s: %v, want %s", c.name, c.text, err, c.want)
		}
	}
	if _, err := loadSlow(t, map[string]string{"tokenizer.json": tiny, "tokenizer_config.json": `{"add_prefix_space":true}`}); err == nil {
		t.Error("add_prefix_space beside tokenizer.json is ignored")
	}
}

// TestLongPiece bounds the work for one long run of letters.
func TestLongPiece(t *testing.T) {
	tok := load(t)
	text := strings.Repeat("abcdefghij", 20000)
	if got := tok.Decode(tok.Encode(text), false); got != text {
		t.Error("a run of 200,000 letters does not come back")
	}
}

func FuzzEncode(f *testing.F) {
	tok := load(f)
	f.Add("Hello, world!\n\n  x<|endoftext|>\xff é 漢字")
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := tok.Decode(tok.Encode(text), false), lossy(text); got != want {
			t.Errorf("%q comes back as %q", text, got)
		}
	})
}

// FuzzStream: whatever the ids are, the pieces of a stream are valid and together what decoding gives.
func FuzzStream(f *testing.F) {
	tok := load(f)
	f.Add([]byte("\x00\xe2\x00\xe2\x00\x82\x01\x10\x00\xf0\x00\x9f"), true)
	f.Fuzz(func(t *testing.T, data []byte, skip bool) {
		s, streamed := tok.Stream(skip), ""
		var ids []int32
		for i := 0; i+1 < len(data); i += 2 {
			id := (int32(data[i])<<8 | int32(data[i+1])) % int32(tok.Len()+1)
			ids = append(ids, id)
			piece := s.Push(id)
			if !utf8.ValidString(piece) {
				t.Fatalf("%v streams %q, which is not UTF-8", ids, piece)
			}
			streamed += piece
		}
		if streamed += s.Flush(); streamed != tok.Decode(ids, skip) {
			t.Errorf("%v streams %q, and decodes to %q", ids, streamed, tok.Decode(ids, skip))
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(tiny))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data)
		if err == nil {
			tok.Decode(tok.Encode("ab<e> x"), true)
		} else if strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 400+len(data) {
			t.Errorf("the error is not one plain line: %q", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := load(b)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog; it costs 12.50 euros, doesn't it?\n", 100)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}

// BenchmarkLongPiece is one word of 100 kB, whose merges all have the same few ranks.
func BenchmarkLongPiece(b *testing.B) {
	tok := load(b)
	text := strings.Repeat("x", 100_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		load(b)
	}
}
