package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// file is a file of the given header text and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

// claims is a file whose header says it has length bytes.
func claims(length uint64, rest string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, length), rest...)
}

func entry(name, dtype, shape, offsets string) string {
	return fmt.Sprintf(`%q:{"dtype":"%s","shape":[%s],"data_offsets":[%s]}`, name, dtype, shape, offsets)
}

// manyKeys are n fields of empty strings.
func manyKeys(n int) string {
	fields := make([]string, n)
	for i := range fields {
		fields[i] = fmt.Sprintf(`"%d":""`, i)
	}
	return strings.Join(fields, ",")
}

var goodFiles = map[string][]byte{
	"no tensors":           file(`{}`, 0),
	"one":                  file(`{`+entry("a", "F32", "2,3", "0,24")+`}`, 24),
	"padded":               file(`{`+entry("a", "F16", "1", "0,2")+`}     `, 2),
	"scalar":               file(`{`+entry("a", "I64", "", "0,8")+`}`, 8),
	"empty tensors":        file(`{`+entry("a", "U8", "0", "0,0")+`,`+entry("b", "U8", "0,7", "0,0")+`}`, 0),
	"empty in between":     file(`{`+entry("a", "U8", "1", "0,1")+`,`+entry("b", "F64", "0", "1,1")+`,`+entry("c", "U8", "1", "1,2")+`}`, 2),
	"not in offset order":  file(`{`+entry("a", "U8", "1", "1,2")+`,`+entry("b", "BOOL", "1", "0,1")+`}`, 2),
	"metadata":             file(`{"__metadata__":{"format":"pt","b":"c"},`+entry("a", "BF16", "1", "0,2")+`}`, 2),
	"escapes and spaces":   file(`{ "\u0061\ud83d\ude00\n" : { "shape" : [ 1 ] , "dtype" : "I8" , "data_offsets" : [ 0 , 1 ] } }`, 1),
	"metadata of no words": file(`{"__metadata__":{}}`, 0),
}

var badFiles = []struct {
	name string
	data []byte
	err  string
}{
	{"nothing", nil, "file has 0 bytes, too few for a header length"},
	{"seven bytes", make([]byte, 7), "file has 7 bytes, too few for a header length"},
	{"length 2^62", claims(1<<62, `{}`), "header claims 4611686018427387904 bytes, more than the limit of 100000000"},
	{"length 2^64-1", claims(math.MaxUint64, `{}`), "header claims 18446744073709551615 bytes, more than the limit of 100000000"},
	{"length beyond the file", claims(99_999_999, `{}`), "header claims 99999999 bytes, but only 2 follow"},
	{"truncated header", file(`{`+entry("a", "F32", "2", "0,8")+`}`, 0)[:20], "header claims 54 bytes, but only 12 follow"},
	{"truncated data", file(`{`+entry("a", "F32", "2", "0,8")+`}`, 7), `header tensor "a": byte 53: data_offsets [0,8] reach beyond the 7 bytes of data`},
	{"trailing garbage", file(`{`+entry("a", "F32", "2", "0,8")+`}`, 11), "3 bytes after the last tensor belong to no tensor"},
	{"data without tensors", file(`{}`, 1), "1 bytes after the last tensor belong to no tensor"},
	{"git lfs", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "file is a Git LFS pointer without the tensors"},
	{"not UTF-8", file("{\"\xff\":1}", 0), "header is not valid UTF-8"},
	{"empty header", file("", 0), "header byte 0: expected an object, '{'"},
	{"an array", file("[]", 0), "header byte 0: expected an object, '{'"},
	{"leading space", file(" {}", 0), "header byte 0: expected an object, '{'"},
	{"no end", file("{", 0), "header byte 1: expected '\"', found the end"},
	{"two objects", file("{}{}", 0), "header byte 2: expected only spaces after the object, found '{'"},
	{"padding of zeros", file("{}\x00\x00", 0), `header byte 2: expected only spaces after the object, found '\x00'`},
	{"padding of new lines", file("{}\n", 0), `header byte 2: expected only spaces after the object, found '\n'`},
	{"trailing comma", file("{"+entry("a", "U8", "0", "0,0")+",}", 0), "header byte 53: expected '\"', found '}'"},
	{"key is a number", file("{1:2}", 0), "header byte 1: expected '\"', found '1'"},
	{"string without end", file(`{"a`, 0), "header byte 2: string has no end"},
	{"string ends in backslash", file(`{"a\`, 0), "header byte 2: string has no end"},
	{"bad escape", file(`{"\q":{}}`, 0), "header byte 2: string has an invalid escape"},
	{"control character", file("{\"a\x1b\":{}}", 0), "header byte 3: string holds the control character 0x1b"},
	{"tensor is a number", file(`{"a":1}`, 0), `header tensor "a": byte 5: expected '{', found '1'`},
	{"deep nesting", file(`{"a":`+strings.Repeat(`{"a":`, 1_000_000), 0), `header tensor "a": byte 10: unknown key "a"`},
	{"deep shape", file(`{"a":{"shape":`+strings.Repeat(`[`, 1_000_000), 0), `header tensor "a": byte 15: expected a number`},
	{"duplicate tensor", file("{"+entry("a", "U8", "1", "0,1")+","+entry("a", "U8", "1", "1,2")+"}", 2), `tensor "a" appears twice`},
	{"duplicate by escape", file("{"+entry("a", "U8", "1", "0,1")+`,"\u0061"`+entry("", "U8", "1", "1,2")[2:]+"}", 2), `tensor "a" appears twice`},
	{"duplicate key", file(`{"a":{"dtype":"U8","dtype":"U8"}}`, 0), `header tensor "a": byte 27: dtype appears twice`},
	{"unknown key", file(`{"a":{"dtyp":"U8"}}`, 0), `header tensor "a": byte 13: unknown key "dtyp"`},
	{"missing key", file(`{"a":{"dtype":"U8","shape":[]}}`, 0), `header tensor "a": byte 30: dtype, shape and data_offsets are all required`},
	{"unknown dtype", file("{"+entry("a", "F8_E4M3", "1", "0,1")+"}", 1),
		`header tensor "a": byte 23: dtype "F8_E4M3" is not one of I64, F64, F32, I32, BF16, F16, I16, I8, U8, BOOL`},
	{"negative dimension", file("{"+entry("a", "U8", "-1", "0,1")+"}", 1), `header tensor "a": byte 28: number is negative`},
	{"fraction", file("{"+entry("a", "U8", "1.0", "0,1")+"}", 1), `header tensor "a": byte 28: number is not whole`},
	{"exponent", file("{"+entry("a", "U8", "1e0", "0,1")+"}", 1), `header tensor "a": byte 28: number is not whole`},
	{"leading zero", file("{"+entry("a", "U8", "01", "0,1")+"}", 1), `header tensor "a": byte 28: number starts with 0`},
	{"dimension of 2^63", file("{"+entry("a", "U8", "9223372036854775808", "0,1")+"}", 1), `header tensor "a": byte 28: number overflows 64 bits`},
	{"null dimension", file("{"+entry("a", "U8", "null", "0,1")+"}", 1), `header tensor "a": byte 28: expected a number`},
	{"product overflows", file("{"+entry("a", "U8", "4294967296,4294967296", "0,0")+"}", 0), `header tensor "a": byte 72: shape overflows 64 bits`},
	{"size overflows", file("{"+entry("a", "F64", "2305843009213693952", "0,0")+"}", 0), `header tensor "a": byte 71: shape overflows 64 bits`},
	{"too many dimensions", file("{"+entry("a", "U8", strings.Repeat("1,", 16)+"1", "0,1")+"}", 1), `header tensor "a": byte 60: shape has more than 16 dimensions`},
	{"one offset", file("{"+entry("a", "U8", "1", "1")+"}", 1), `header tensor "a": byte 49: data_offsets hold 1 numbers, not two`},
	{"three offsets", file("{"+entry("a", "U8", "1", "0,1,2")+"}", 1), `header tensor "a": byte 51: data_offsets hold more than two numbers`},
	{"negative offset", file("{"+entry("a", "U8", "1", "-1,0")+"}", 1), `header tensor "a": byte 47: number is negative`},
	{"offsets swapped", file("{"+entry("a", "U8", "1", "1,0")+"}", 1), `header tensor "a": byte 52: data_offsets end before they begin: [1,0]`},
	{"offset beyond the file", file("{"+entry("a", "U8", "1", "9223372036854775806,9223372036854775807")+"}", 1),
		`header tensor "a": byte 88: data_offsets [9223372036854775806,9223372036854775807] reach beyond the 1 bytes of data`},
	{"size is not shape by dtype", file("{"+entry("a", "F32", "2", "0,7")+"}", 7), `header tensor "a": byte 53: F32[2] takes 8 bytes, but data_offsets hold 7`},
	{"overlap", file("{"+entry("a", "U8", "2", "0,2")+","+entry("b", "U8", "2", "1,3")+"}", 3), `tensor "b" overlaps the one before it by 1 bytes`},
	{"same place", file("{"+entry("a", "U8", "2", "0,2")+","+entry("b", "U8", "2", "0,2")+"}", 2), `tensor "b" overlaps the one before it by 2 bytes`},
	{"empty inside another", file("{"+entry("a", "U8", "2", "0,2")+","+entry("b", "U8", "0", "1,1")+"}", 2), `tensor "b" overlaps the one before it by 1 bytes`},
	{"gap", file("{"+entry("a", "U8", "1", "0,1")+","+entry("b", "U8", "1", "3,4")+"}", 4), `2 bytes before tensor "b" belong to no tensor`},
	{"gap at the start", file("{"+entry("a", "U8", "1", "1,2")+"}", 2), `1 bytes before tensor "a" belong to no tensor`},
	{"metadata is null", file(`{"__metadata__":null}`, 0), `header __metadata__: byte 16: expected '{', found 'n'`},
	{"metadata of numbers", file(`{"__metadata__":{"a":1}}`, 0), `header __metadata__: byte 21: expected '"', found '1'`},
	{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0), `header byte 34: __metadata__ appears twice`},
	{"metadata key twice", file(`{"__metadata__":{"a":"b","a":"c"}}`, 0), `header __metadata__: byte 29: key "a" appears twice`},
	{"metadata of many keys", file(`{"__metadata__":{`+manyKeys(10_001)+`}}`, 0), `header __metadata__: byte 98915: more than 10000 keys`},
	{"name of escapes", file("{\"\\u001b[2J\u202e\":1}", 0), `header tensor "\x1b[2J\u202e": byte 16: expected '{', found '1'`},
	{"long name", file(`{"`+strings.Repeat("x", 5000)+`":1}`, 0),
		`header tensor "` + strings.Repeat("x", 120) + `"… (5000 bytes): byte 5004: expected '{', found '1'`},
}

func TestParseRefuses(t *testing.T) {
	for _, c := range badFiles {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.data)
			if err == nil || err.Error() != c.err {
				t.Errorf("got  %v\nwant %s", err, c.err)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	for name, data := range goodFiles {
		t.Run(name, func(t *testing.T) {
			f, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range f.Tensors() {
				if got, ok := f.Get(want.Name); !ok || got.begin != want.begin || got.DType != want.DType {
					t.Errorf("Get(%q) = %v, %v", want.Name, got, ok)
				}
			}
			if _, ok := f.Get("no such tensor"); ok {
				t.Error("found a tensor that is not there")
			}
		})
	}
	f, err := Parse(goodFiles["escapes and spaces"])
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Tensors()[0].Name; got != "a😀\n" {
		t.Errorf("name %q", got)
	}
	f, err = Parse(goodFiles["not in offset order"])
	if err != nil {
		t.Fatal(err)
	}
	if f.Tensors()[0].Name != "b" || f.Tensors()[1].Name != "a" {
		t.Errorf("tensors are not in file order: %v", f.Tensors())
	}
}

// allocated is how many bytes the heap hands out while do runs, the least of three times.
func allocated(do func()) int64 {
	least := int64(math.MaxInt64)
	for range 3 { // the runtime's own goroutines may allocate meanwhile
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		least = min(least, int64(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}

func TestParseAllocatesLittle(t *testing.T) {
	const n = 20_000
	var dense, huge, wide, places []string
	for i := range n {
		places = append(places, fmt.Sprintf(`"%x":"a.safetensors"`, i))
		dense = append(dense, entry(fmt.Sprintf("%x", i), "U8", "0", "0,0"))
		wide = append(wide, entry(fmt.Sprintf("%x", i), "U8", strings.Repeat("0,", maxDims-1)+"0", "0,0"))
		huge = append(huge, entry(fmt.Sprintf("%x", i), "U8", "1099511627776", "0,1099511627776"))
	}
	for name, data := range map[string][]byte{
		"length 2^62":    claims(1<<62, "{}"),
		"length 99 MB":   claims(99_999_999, "{}"),
		"dense":          file("{"+strings.Join(dense, ",")+"}", 0),
		"wide":           file("{"+strings.Join(wide, ",")+"}", 0),
		"huge shapes":    file("{"+strings.Join(huge, ",")+"}", 0),
		"metadata":       file(`{"__metadata__":{`+manyKeys(50*n)+"}}", 0),
		"fake entries":   file("{"+strings.Repeat(`"data_offsets"`, n), 0),
		"brackets":       file("{"+strings.Repeat("[", n*10), 0),
		"escaped string": file(`{"`+strings.Repeat(`\n`, n*10), 0),
	} {
		got := allocated(func() { Parse(data) })
		if limit := int64(4*len(data) + 4096); got > limit {
			t.Errorf("%s: allocated %d bytes for a file of %d", name, got, len(data))
		}
	}
	index := []byte(`{"weight_map":{` + strings.Join(places, ",") + "}}")
	if got, limit := allocated(func() { parseIndex(index) }), int64(8*len(index)); got > limit {
		t.Errorf("index: allocated %d bytes for a file of %d", got, len(index))
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f, err := Open(write("good", goodFiles["metadata"]))
	if err != nil {
		t.Fatal(err)
	}
	a, ok := f.Get("a")
	if !ok || a.DType != BF16 || !slices.Equal(a.Shape, []int{1}) || !bytes.Equal(a.Data, []byte{0, 0}) {
		t.Errorf("tensor %+v", a)
	}
	if f.Metadata["format"] != "pt" {
		t.Errorf("metadata %v", f.Metadata)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		write("empty", nil):                     "file is empty; download or make it again",
		write("cut", goodFiles["metadata"][:9]): "header claims 94 bytes, but only 1 follow; download or make it again",
		filepath.Join(dir, "none"):              "file is missing; check the path",
		filepath.Join(dir, "good", "x"):         "file cannot be read: not a directory; check the path and the disk",
		dir:                                     "not a regular file; name a .safetensors file",
		pipe:                                    "not a regular file; name a .safetensors file",
	} {
		if _, err := Open(path); err == nil || err.Error() != "open "+path+": "+want {
			t.Errorf("got  %v\nwant open %s: %s", err, path, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range badFiles {
		if len(c.data) < 10_000 {
			f.Add(c.data)
		}
	}
	for _, data := range goodFiles {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := Parse(data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error is not one clean line: %q", err)
			}
			return
		}
		var entries []Entry
		body := 0
		for _, tensor := range parsed.Tensors() {
			size, err := byteSize(tensor.DType, tensor.Shape)
			if err != nil || size != len(tensor.Data) || tensor.begin != body {
				t.Fatalf("tensor %+v at %d, %v", tensor, body, err)
			}
			body += size
			entries = append(entries, Entry{tensor.Name, tensor.DType, tensor.Shape, Bytes(tensor.Data)})
		}
		slices.SortStableFunc(entries, inFileOrder)
		header, size, err := encodeHeader(parsed.Metadata, entries)
		if err != nil || size != body {
			t.Fatalf("writing what was read: %d bytes instead of %d, %v", size, body, err)
		}
		again, err := Parse(append(header, make([]byte, size)...))
		if err != nil {
			t.Fatalf("reading what was written: %v", err)
		}
		for i, tensor := range again.Tensors() {
			e := entries[i]
			if tensor.Name != e.Name || tensor.DType != e.DType || !slices.Equal(tensor.Shape, e.Shape) {
				t.Fatalf("wrote %+v, read %+v", e, tensor)
			}
		}
	})
}
