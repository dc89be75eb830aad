package safetensors

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folder makes a folder of the given files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func bytesOf(names ...string) string {
	var entries []string
	for i, name := range names {
		entries = append(entries, entry(name, "U8", "1", fmt.Sprintf("%d,%d", i, i+1)))
	}
	return string(file("{"+strings.Join(entries, ",")+"}", len(names)))
}

func weightMap(pairs ...string) string {
	var entries []string
	for i := 0; i < len(pairs); i += 2 {
		entries = append(entries, fmt.Sprintf("%q: %q", pairs[i], pairs[i+1]))
	}
	return `{"metadata": {"total_size": 3.0, "more": [{"x": null}]}, "weight_map": {` + strings.Join(entries, ", ") + "}}\n"
}

const (
	shard1 = "model-00001-of-00002.safetensors"
	shard2 = "model-00002-of-00002.safetensors"
)

func TestOpenFolder(t *testing.T) {
	both := weightMap("c", shard1, "a", shard2, "b", shard1)
	for name, dir := range map[string]string{
		"single":                 folder(t, map[string]string{singleName: bytesOf("c", "a", "b")}),
		"shards":                 folder(t, map[string]string{indexName: both, shard1: bytesOf("c", "b"), shard2: bytesOf("a")}),
		"single hides the index": folder(t, map[string]string{singleName: bytesOf("c", "a", "b"), indexName: "broken", "pytorch_model.bin": ""}),
	} {
		t.Run(name, func(t *testing.T) {
			ck, err := OpenFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := ck.Names(); !slices.Equal(got, []string{"a", "b", "c"}) {
				t.Errorf("names %v", got)
			}
			for _, path := range ck.Files() {
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
			}
			for _, name := range ck.Names() {
				if tensor, err := ck.Get(name); err != nil || tensor.Name != name || len(tensor.Data) != 1 {
					t.Errorf("Get(%q) = %v, %v", name, tensor, err)
				}
			}
			want := "read " + dir + `: tensor "d" is missing; check that the folder holds the model its config.json describes`
			if _, err := ck.Get("d"); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			for range 2 {
				if err := ck.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOpenFolderRefuses(t *testing.T) {
	pair := weightMap("a", shard1, "b", shard2)
	for _, c := range []struct {
		name  string
		files map[string]string
		err   string // DIR stands for the folder
	}{
		{"empty", nil, "open DIR: folder is empty; download the model into it"},
		{"other files", map[string]string{"config.json": "{}"},
			"open DIR: folder has neither model.safetensors nor model.safetensors.index.json; download the model into it"},
		{"pickle", map[string]string{"config.json": "{}", "pytorch_model.bin": "x"},
			`open DIR: "pytorch_model.bin" is a pickle, which can run code when loaded; convert it with the safetensors library or download the .safetensors files`},
		{"checkpoint", map[string]string{"last.CKPT": "x"},
			`open DIR: "last.CKPT" is a pickle, which can run code when loaded; convert it with the safetensors library or download the .safetensors files`},
		{"shards without index", map[string]string{shard1: bytesOf("a"), shard2: bytesOf("b"), "x.pt": ""},
			"open DIR: folder has 2 .safetensors files, but neither model.safetensors nor model.safetensors.index.json; download the index too"},
		{"adapter", map[string]string{"adapter_model.safetensors": bytesOf("a")},
			"open DIR: folder is a LoRA adapter, not a model; name the model's folder instead"},
		{"missing shard", map[string]string{indexName: pair, shard1: bytesOf("a")},
			"open DIR/" + shard2 + ": shard is missing; download it again"},
		{"broken shard", map[string]string{indexName: pair, shard1: bytesOf("a"), shard2: bytesOf("b")[:30]},
			"open DIR/" + shard2 + ": header claims 53 bytes, but only 22 follow; download or make it again"},
		{"broken single file", map[string]string{singleName: "{}"},
			"open DIR/model.safetensors: file has 2 bytes, too few for a header length; download or make it again"},
		{"tensor not in its shard", map[string]string{indexName: weightMap("a", shard1, "b", shard2, "c", shard2), shard1: bytesOf("a"), shard2: bytesOf("b")},
			"open DIR/" + shard2 + `: tensor "c" is missing, although the index places it there; download the shard and the index again`},
		{"tensor not in the index", map[string]string{indexName: pair, shard1: bytesOf("a", "c"), shard2: bytesOf("b")},
			"open DIR/" + shard1 + `: holds tensor "c", which the index does not place there; download the shard and the index again`},
		{"tensor in two shards", map[string]string{indexName: pair, shard1: bytesOf("a"), shard2: bytesOf("b", "a")},
			"open DIR/" + shard2 + `: holds tensor "a", which the index does not place there; download the shard and the index again`},
		{"index leads out", map[string]string{indexName: weightMap("a", "../x.safetensors")},
			"open DIR/" + indexName + `: index places tensor "a" in "../x.safetensors", which is not a plain file name; download it again`},
		{"empty index", map[string]string{indexName: ""},
			"open DIR/" + indexName + `: index byte 0: expected '{', found the end; download it again`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.files)
			_, err := OpenFolder(dir)
			if want := strings.ReplaceAll(c.err, "DIR", dir); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
	dir := folder(t, map[string]string{"file": ""})
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "folder is missing; check the path",
		filepath.Join(dir, "file"): "not a folder; name the folder that holds model.safetensors",
	} {
		if _, err := OpenFolder(path); err == nil || err.Error() != "open "+path+": "+want {
			t.Errorf("got  %v\nwant open %s: %s", err, path, want)
		}
	}
}

var badIndexes = []struct{ name, text, err string }{
	{"nothing", "", "index byte 0: expected '{', found the end"},
	{"array", "[]", "index byte 0: expected '{', found '['"},
	{"not UTF-8", "{\"\xff\":1}", "index is not valid UTF-8"},
	{"no map", "{}", "index has no weight_map"},
	{"empty map", `{"weight_map":{}}`, "index has no weight_map"},
	{"map of numbers", `{"weight_map":{"a":1}}`, `index byte 19: expected '"', found '1'`},
	{"map is null", `{"weight_map":null}`, `index byte 14: expected '{', found 'n'`},
	{"map twice", `{"weight_map":{"a":"b.safetensors"},"weight_map":{}}`, "index byte 49: weight_map appears twice"},
	{"metadata twice", `{"metadata":{},"metadata":{}}`, "index byte 26: metadata appears twice"},
	{"metadata is a list", `{"metadata":[]}`, "index byte 12: metadata is not an object"},
	{"metadata without value", `{"metadata":{"a":}}`, "index byte 17: expected a value"},
	{"metadata of nonsense", `{"metadata":{"a":nil}}`, "index byte 17: expected a value"},
	{"deep metadata", `{"metadata":{"a":` + strings.Repeat("[", 1_000_000), "index byte 32: nested too deeply"},
	{"unknown key", `{"weights":{}}`, `index byte 11: unknown key "weights"`},
	{"tensor twice", `{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}`, `index byte 39: key "a" appears twice`},
	{"trailing text", weightMap("a", "x.safetensors") + "{}", "index byte 95: expected the end, found '{'"},
	{"trailing zero", `{"weight_map":{"a":"x.safetensors"}}` + "\x00", `index byte 36: expected the end, found '\x00'`},
	{"parent", weightMap("a", ".."), `index places tensor "a" in "..", which is not a plain file name`},
	{"leads out", weightMap("a", "../x.safetensors"), `index places tensor "a" in "../x.safetensors", which is not a plain file name`},
	{"absolute", weightMap("a", "/etc/x.safetensors"), `index places tensor "a" in "/etc/x.safetensors", which is not a plain file name`},
	{"subfolder", weightMap("a", "b/x.safetensors"), `index places tensor "a" in "b/x.safetensors", which is not a plain file name`},
	{"backslash", weightMap("a", `b\x.safetensors`), `index places tensor "a" in "b\\x.safetensors", which is not a plain file name`},
	{"zero byte", `{"weight_map":{"a":"x\u0000.safetensors"}}`, `index places tensor "a" in "x\x00.safetensors", which is not a plain file name`},
	{"no name", weightMap("a", ""), `index places tensor "a" in "", which is not a plain file name`},
	{"pickle", weightMap("a", "pytorch_model.bin"), `index places tensor "a" in "pytorch_model.bin", a pickle, which can run code when loaded`},
	{"other file", weightMap("a", "config.json"), `index places tensor "a" in "config.json", which is not a .safetensors file`},
}

func TestIndexRefuses(t *testing.T) {
	for _, c := range badIndexes {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseIndex([]byte(c.text)); err == nil || err.Error() != c.err {
				t.Errorf("got  %v\nwant %s", err, c.err)
			}
		})
	}
}

func FuzzIndex(f *testing.F) {
	for _, c := range badIndexes {
		if len(c.text) < 10_000 {
			f.Add([]byte(c.text))
		}
	}
	f.Add([]byte(weightMap("a", shard1, "b", shard2)))
	f.Add([]byte(`{"metadata":{"a":[1,-2.5e3,true,"\u0041",{"b":[]}]},"weight_map":{"a":"x.safetensors"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		weightMap, err := parseIndex(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error is not one clean line: %q", err)
			}
			return
		}
		for name, shard := range weightMap {
			if filepath.Join("/dir", shard) != "/dir/"+shard || filepath.Base(shard) != shard {
				t.Errorf("tensor %q is placed outside the folder: %q", name, shard)
			}
		}
	})
}
