package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

func TestLocate(t *testing.T) {
	const text = `# a = 'not a key'
a = 1 # [not.a.table]
"b c" = 'x = 1 # still the string'
'd"e' = "quote \" and # and ]"
[ t . "u.v" ]   # comment
  dotted . key = 1979-05-27 07:32:00   # a date with a space in it
  list = [ 'one', # comment ] with bracket
    "two]", [3, 4], { in = [5] },
  ]
  inline = { x = 1, y.z = "}" , "q" = ''' ''' }
[t.long]
basic = """
key = 1
[table]
\""" still "" inside """""
literal = '''
it''s \'''
end = true
[[many]]
name = 1
[[many]]
name = 2
`
	want := map[string]string{ // the key as it stands and the value as it stands
		`a`:                  "a|1",
		`"b c"`:              `"b c"|'x = 1 # still the string'`,
		`"d\"e"`:             `'d"e'|"quote \" and # and ]"`,
		`t`:                  "t|t",
		`t."u.v"`:            `"u.v"|"u.v"`,
		`t."u.v".dotted`:     "dotted|dotted",
		`t."u.v".dotted.key`: "key|1979-05-27 07:32:00",
		`t."u.v".list`:       "list|[ 'one', # comment ] with bracket\n    \"two]\", [3, 4], { in = [5] },\n  ]",
		`t."u.v".list[0]`:    "'one'|'one'",
		`t."u.v".list[1]`:    `"two]"|"two]"`,
		`t."u.v".list[2]`:    "[3, 4]|[3, 4]",
		`t."u.v".list[2][0]`: "3|3",
		`t."u.v".list[2][1]`: "4|4",
		`t."u.v".list[3]`:    "{ in = [5] }|{ in = [5] }",
		`t."u.v".list.in`:    "in|[5]",
		`t."u.v".list.in[0]`: "5|5",
		`t."u.v".inline`:     `inline|{ x = 1, y.z = "}" , "q" = ''' ''' }`,
		`t."u.v".inline.x`:   "x|1",
		`t."u.v".inline.y`:   "y|y",
		`t."u.v".inline.y.z`: `z|"}"`,
		`t."u.v".inline.q`:   `"q"|''' '''`,
		`t.long`:             "long|long",
		`t.long.basic`:       "basic|\"\"\"\nkey = 1\n[table]\n\\\"\"\" still \"\" inside \"\"\"\"\"",
		`t.long.literal`:     "literal|'''\nit''s \\'''",
		`t.long.end`:         "end|true",
		`many`:               "many|many",
		`many.name`:          "name|1",
	}
	if _, err := toml.Decode(text, &map[string]any{}); err != nil {
		t.Fatal(err)
	}
	places, refused := locate(text)
	if refused != nil {
		t.Fatal("the text is refused")
	}
	got := map[string]string{}
	for key, p := range places {
		got[key] = text[p.key.start:p.key.end] + "|" + text[p.value.start:p.value.end]
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if got[key] != want[key] {
			t.Errorf("%s is at %q, want %q", key, got[key], want[key])
		}
	}
	for key := range want {
		if _, ok := got[key]; !ok {
			t.Errorf("%s is not found", key)
		}
	}
}

// checkPlaces holds the places of a valid file against what the TOML library decodes: each value's text decodes to that value.
func checkPlaces(t *testing.T, text string, tree map[string]any, path []string, places map[string]place) {
	t.Helper()
	for name, value := range tree {
		path := append(path[:len(path):len(path)], name)
		key := toml.Key(path).String()
		at, ok := places[key]
		if !ok {
			t.Fatalf("%s has no place", key)
		}
		switch v := value.(type) {
		case map[string]any:
			checkPlaces(t, text, v, path, places)
		case []map[string]any: // a place stands for the first of an array of tables
		default:
			var again struct{ V any }
			piece := text[at.value.start:at.value.end]
			if _, err := toml.Decode("V = "+piece, &again); err != nil {
				t.Fatalf("%s: the piece %q does not decode: %v", key, piece, err)
			}
			if date, ok := v.(time.Time); ok {
				if other, ok := again.V.(time.Time); !ok || !other.Equal(date) {
					t.Fatalf("%s: the piece %q decodes to %v, want %v", key, piece, again.V, date)
				}
				continue
			}
			if v, w := fmt.Sprintf("%#v", v), fmt.Sprintf("%#v", again.V); v != w {
				t.Fatalf("%s: the piece %q decodes to %s, want %s", key, piece, w, v)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"../config.toml", "../demo/config.toml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	for _, text := range []string{
		"", "\uFEFFseed = 1", "[lora]\nr = 0", "lora = { r = 1, alpha = [1, {}] }", "a = '''x''''", `"\u00e9" = """\"""""`, "[[a]]\nb.c = [[], [1,],]\n",
		"[lora]\r\ntarget_modules = [ # c\r\n 'q_proj',\r\n]", "x = 1979-05-27 07:32:00", "\xff", "[a.b]\n[a]\nb.c=1", "a={\nb=1,\n}", "seed = 99999999999999999999",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("config.toml", []byte(text))
		if e, ok := err.(*Error); ok {
			lines := strings.Split(strings.TrimPrefix(text, "\uFEFF"), "\n")
			if e.Line < 1 || e.Line > len(lines) {
				t.Fatalf("line %d of %d", e.Line, len(lines))
			}
			if line := strings.TrimSuffix(lines[e.Line-1], "\r"); line != e.Source {
				t.Fatalf("line %d is %q, the error shows %q", e.Line, line, e.Source)
			}
			if n := len([]rune(e.Source)); e.Column < 1 || e.Column > n+1 || e.Width < 1 || e.Column+e.Width > max(n, e.Column)+1 {
				t.Fatalf("columns %d+%d of %d", e.Column, e.Width, n)
			}
			if shown := e.Error(); strings.ContainsFunc(shown, func(r rune) bool { return r != '\n' && r < ' ' }) {
				t.Fatalf("control characters in %q", shown)
			}
		} else if err != nil {
			t.Fatalf("an error without a place: %v", err)
		} else if _, err := c.Part("lora"); err != nil {
			t.Fatal(err)
		} else if again, err := Parse("config.toml", []byte(text)); err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("decoded again to %+v (%v)", again, err)
		}

		text = strings.TrimPrefix(text, "\uFEFF")
		places, refused := locate(text)
		for key, p := range places {
			for _, s := range []span{p.key, p.value} {
				if s.start < 0 || s.end < s.start || s.end > len(text) {
					t.Fatalf("%s is at %d to %d of %d", key, s.start, s.end, len(text))
				}
			}
		}
		var tree map[string]any
		if refused == nil && invalidUTF8(text) < 0 && !strings.HasPrefix(text, "\uFEFF") {
			if _, err := toml.Decode(text, &tree); err == nil {
				checkPlaces(t, text, tree, nil, places)
			}
		}
	})
}
