package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"quartet/dataset/parquet"
)

// columns are the texts of a row, in Row's order.
var columns = []string{"instruction", "context", "response", "category"}

// IsParquet tells by a file's name whether its rows are in Parquet.
func IsParquet(name string) bool { return filepath.Ext(name) == ".parquet" }

func readParquet(path string) (rows []Row, err error) {
	err = ParquetRows(path, func(n int, row Row, err error) error {
		if err != nil {
			return fmt.Errorf("%s: row %d: %w", path, n, err)
		}
		rows = append(rows, row)
		return nil
	})
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("%s holds no rows; it needs columns instruction and response", path)
	}
	return rows, err
}

// ParquetRows visits the rows of a Parquet file, counted from 1, each with what is wrong with it. Its error is of the file,
// or visit's own.
func ParquetRows(path string, visit func(n int, row Row, err error) error) error {
	stopped := false
	err := parquet.Read(path, columns, hasColumns, func(n int, texts []string) error {
		row := Row{texts[0], texts[1], texts[2], texts[3]}
		err := row.check()
		if slices.ContainsFunc(texts, func(text string) bool { return !utf8.ValidString(text) }) {
			err = errors.New("the row is not valid UTF-8")
		}
		err = visit(n, row, err)
		stopped = err != nil
		return err
	})
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return fmt.Errorf("read the dataset: %w", err)
	}
	if err != nil && !stopped {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return err
}

// hasColumns refuses a file without the columns that every row needs.
func hasColumns(all []string) error {
	for _, name := range []string{"instruction", "response"} {
		if !slices.Contains(all, name) {
			return fmt.Errorf("it has no column %q, only %.200q; rename its columns to instruction, context and response", name, strings.Join(all, ", "))
		}
	}
	return nil
}
