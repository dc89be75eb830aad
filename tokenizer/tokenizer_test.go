package tokenizer

import (
	"encoding/json"
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
	if _, err := os.Stat(goldenDir()); err != nil {
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
		{`["a","b"]`, `"a b c"`, `not a tokenizer: merge "a b c" is not two tokens`},
		{`"b":2`, `"b":1`, `two tokens have id 1`},
		{`"b":2`, `"b":-2`, `token "b" has id -2, which is not within 0 and 16777215`},
		{`"b":2`, `"b":2147483647`, `token "b" has id 2147483647, which is not within 0 and 16777215`},
		{`"id":0,`, `"id":3,`, `added token "<e>" has id 3, but the vocabulary says 0`},
		{`"special":true`, `"lstrip":true`, `added token "<e>": single_word, lstrip and rstrip are not supported`},
		{`"decoder":`, `"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{}},{"Sequence":{}}]},"decoder":`, `post_processor "TemplateProcessing" adds tokens, which is not supported`},
		{`}}`, `}`, `not a tokenizer: unexpected end of JSON input`},
	} {
		_, err := Parse([]byte(strings.Replace(tiny, c.old, c.new, 1)))
		if err == nil || err.Error() != c.want {
			t.Errorf("with %s: %v, want %s", c.new, err, c.want)
		}
	}
}

// TestSlowFiles builds the same tokenizer from vocab.json, merges.txt and tokenizer_config.json.
func TestSlowFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"vocab.json":            `{"<e>":0,"a":1,"b":2,"ab":3}`,
		"merges.txt":            "#version: 0.2\na b\n",
		"tokenizer_config.json": `{"added_tokens_decoder":{"0":{"content":"<e>","special":true},"4":{"content":"aa"}}}`,
		"added_tokens.json":     `{"aa":4,"bbb":5}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Encode("ab<e>baabbbb"), []int32{3, 0, 2, 4, 5, 2}; !slices.Equal(got, want) {
		t.Errorf("encodes to %v, not %v", got, want)
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "there is neither tokenizer.json nor vocab.json") {
		t.Errorf("an empty folder: %v", err)
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
		if tok, err := Parse(data); err == nil {
			tok.Decode(tok.Encode("ab<e> x"), true)
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

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		load(b)
	}
}
