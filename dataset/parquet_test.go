package dataset

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"
)

// stored is a row as the library writes it: a column of another kind, nested ones and a null among its texts.
type stored struct {
	ID          int64    `parquet:"id"`
	Tags        []string `parquet:"tags"`
	Instruction string   `parquet:"instruction,dict"`
	Context     *string  `parquet:"context,optional,plain"`
	Response    string   `parquet:"response"` // with its lengths as differences
	Category    *string  `parquet:"category,optional,dict"`
}

// someRows are rows with repeated, empty, missing and long texts.
func someRows(n int) (rows []stored, want []Row) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		s := stored{ID: int64(i), Tags: strings.Fields("a b c")[:i%4], Instruction: fmt.Sprintf("Question %d?", i%7), Response: strings.Repeat("é", 1+r.IntN(300))}
		w := Row{Instruction: s.Instruction, Response: s.Response}
		if i%3 > 0 {
			text := fmt.Sprintf("Context %d", i)
			s.Context, w.Context = &text, text
		}
		if i%5 > 0 {
			text := []string{"qa", "open"}[i%2]
			s.Category, w.Category = &text, text
		}
		rows, want = append(rows, s), append(want, w)
	}
	return rows, want
}

func writeParquet[T any](t *testing.T, rows []T, options ...parquet.WriterOption) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := parquet.NewGenericWriter[T](f, options...)
	for part := range slices.Chunk(rows, 1000) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil { // a row group
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParquetOfEveryKind(t *testing.T) {
	rows, want := someRows(2500)
	for name, codec := range map[string]compress.Codec{"none": &parquet.Uncompressed, "snappy": &parquet.Snappy, "gzip": &parquet.Gzip, "zstd": &parquet.Zstd} {
		for version := 1; version <= 2; version++ {
			for _, encoding := range []encoding.Encoding{&parquet.Plain, &parquet.DeltaLengthByteArray} {
				path := writeParquet(t, rows, parquet.Compression(codec), parquet.DataPageVersion(version), parquet.PageBufferSize(4096),
					parquet.DefaultEncodingFor(parquet.ByteArray, encoding))
				got, err := Read(path)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s, version %d, %v: %d rows read, not the %d written: %v", name, version, encoding, len(got), len(want), err)
				}
			}
		}
	}
}

func TestParquetWithSharedPrefixes(t *testing.T) {
	type shared struct {
		Instruction string `parquet:"instruction,delta"`
		Response    string `parquet:"response,plain"`
	}
	var rows []shared
	var want []Row
	for i := range 300 {
		r := shared{fmt.Sprintf("What is %d times %d?", i/10, i), fmt.Sprint(i / 10 * i)}
		rows, want = append(rows, r), append(want, Row{Instruction: r.Instruction, Response: r.Response})
	}
	for _, n := range []int{1, 2, 33, 128, 129, 300} {
		if got, err := Read(writeParquet(t, rows[:n])); err != nil || !slices.Equal(got, want[:n]) {
			t.Errorf("%d rows: %d read, %v", n, len(got), err)
		}
	}
}

func TestParquetRefused(t *testing.T) {
	rows, _ := someRows(10)
	good, err := os.ReadFile(writeParquet(t, rows))
	if err != nil {
		t.Fatal(err)
	}
	type other struct {
		Prompt string `parquet:"prompt"`
		Answer string `parquet:"answer"`
	}
	type number struct {
		Instruction int64  `parquet:"instruction"`
		Response    string `parquet:"response"`
	}
	withFooter := func(length uint32) string {
		data := slices.Clone(good)
		binary.LittleEndian.PutUint32(data[len(data)-8:], length)
		return atPath(t, data)
	}
	list := []byte("PAR1\x29\xfc\xff\xff\xff\xff\x0f\x00") // a schema of 4 G elements
	list = append(binary.LittleEndian.AppendUint32(list, 8), "PAR1"...)
	brotli := writeParquet(t, rows, parquet.Compression(&parquet.Brotli))
	empty := writeParquet(t, []stored{{Instruction: "Why?"}})
	for _, c := range []struct{ path, want string }{
		{filepath.Join(t.TempDir(), "none.parquet"), "read the dataset: open "},
		{atPath(t, []byte("PAR1")), ": the file has 4 bytes, too few for Parquet; download it again"},
		{atPath(t, good[:len(good)-1]), ": it does not end as a Parquet file does; download it again"},
		{withFooter(4 << 20), ": its metadata claims 4194304 bytes, but the file has "},
		{withFooter(1<<32 - 1), ": its metadata claims 4294967295 bytes, more than the limit of 4194304"},
		{atPath(t, list), ": its metadata is damaged"},
		{writeParquet(t, []other{{"Why?", "So."}}), `: it has no column "instruction", only "prompt, answer"; rename its columns to instruction, context and response`},
		{writeParquet(t, []number{{1, "So."}}), `: column "instruction": it is no column of texts; make it one`},
		{brotli, `: column "instruction": compression 4 is not read, only snappy, gzip, zstd and none; write it anew with snappy`},
		{empty, ": row 1: response is missing or empty"},
		{writeParquet(t, []stored{}), " holds no rows; it needs columns instruction and response"},
	} {
		if _, err := Read(c.path); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, not %q", err, c.want)
		}
	}
}

func atPath(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.parquet")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDamagedParquetIsAnError changes bytes of files of each kind. Whatever comes of it is rows or an error of one line, and
// what it allocates is bounded by the limit of a page and not by what the bytes claim.
func TestDamagedParquetIsAnError(t *testing.T) {
	rows, _ := someRows(40)
	r := rand.New(rand.NewPCG(3, 4))
	for _, codec := range []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Zstd} {
		good, err := os.ReadFile(writeParquet(t, rows, parquet.Compression(codec)))
		if err != nil {
			t.Fatal(err)
		}
		path := atPath(t, good)
		var before, after runtime.MemStats
		for range 700 {
			data := slices.Clone(good)
			for range 1 + r.IntN(3) {
				data[r.IntN(len(data))] = byte(r.IntN(256))
			}
			if r.IntN(10) == 0 {
				data = data[:r.IntN(len(data))]
			}
			if err := os.WriteFile(path, data, 0o666); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&before)
			if _, err := Read(path); err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 600<<20 {
				t.Fatalf("%d bytes allocated for a file of %d", after.TotalAlloc-before.TotalAlloc, len(data))
			}
		}
	}
}
