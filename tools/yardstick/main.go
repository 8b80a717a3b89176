// Command yardstick measures how a Go tree reads. It prints, for production code without what is generated:
//
//   - the types of one service with the most methods,
//   - the pairs of files of a package whose functions or methods call each other both ways,
//   - per package, the percentage of lines that are only a comment,
//   - the lines of each module, and those that are code.
//
// It needs nothing but the sources, so that it runs on any commit. Each package is looked at by itself: what a name stands
// for is known where that does not follow from other packages' types.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	service := flag.String("service", "services/director", "the module whose types and pairs of files are listed")
	most := flag.Int("most", 10, "how many types are listed")
	flag.Parse()
	root := cmp.Or(flag.Arg(0), ".")
	if err := report(root, *service, *most); err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
}

// source is one production file.
type source struct {
	name     string // without its folder
	lines    int
	comments int // lines that are only a comment
	blank    int
	syntax   *ast.File
	uses     map[*ast.Ident]types.Object // what its names stand for
}

// report prints the measures of the tree at root.
func report(root, service string, most int) error {
	packages, err := read(root)
	if err != nil {
		return err
	}
	modules, code := map[string]int{}, map[string]int{} // lines
	counts := map[string]int{}
	var pairs []string
	fmt.Println("comment lines, in percent of all lines")
	for _, folder := range slices.Sorted(maps.Keys(packages)) {
		all, comments, blank := 0, 0, 0
		for _, f := range packages[folder] {
			all, comments, blank = all+f.lines, comments+f.comments, blank+f.blank
		}
		modules[module(folder)] += all
		code[module(folder)] += all - comments - blank
		fmt.Printf("%6.1f  %s (%d)\n", 100*float64(comments)/float64(all), folder, all)
		if folder == service || strings.HasPrefix(folder, service+"/") {
			for receiver, n := range methods(packages[folder]) {
				counts[folder+"."+receiver] = n
			}
			pairs = append(pairs, mutual(folder, packages[folder])...)
		}
	}
	fmt.Println("\nmethods per type of", service)
	types := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, name := range types[:min(most, len(types))] {
		fmt.Printf("%6d  %s\n", counts[name], name)
	}
	fmt.Printf("\npairs of files of a package that call each other both ways: %d\n", len(pairs))
	for _, pair := range pairs {
		fmt.Println("       ", pair)
	}
	fmt.Println("\nproduction lines, and of these code")
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		fmt.Printf("%6d %6d  %s\n", modules[name], code[name], name)
	}
	return nil
}

// module names the part of the tree that a folder's lines count for: services/director, shared, e2e.
func module(folder string) string {
	first, rest, _ := strings.Cut(folder, "/")
	if first != "services" {
		return first
	}
	name, _, _ := strings.Cut(rest, "/")
	return first + "/" + name
}

// read parses the production files below root, by folder.
func read(root string) (map[string][]source, error) {
	packages, positions := map[string][]source{}, token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(positions, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if ast.IsGenerated(syntax) {
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		folder = filepath.ToSlash(folder)
		packages[folder] = append(packages[folder], source{
			name: entry.Name(), lines: bytes.Count(text, []byte("\n")), comments: commentLines(text),
			blank: bytes.Count(text, []byte("\n\n")), syntax: syntax,
		})
		return nil
	})
	for folder, files := range packages {
		resolve(folder, positions, files)
	}
	return packages, err
}

// commentLines counts the lines of a file that have a comment and nothing else.
func commentLines(text []byte) int {
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	comment, code := map[int]bool{}, map[int]bool{}
	for {
		at, kind, literal := s.Scan()
		if kind == token.EOF {
			break
		}
		lines := code
		if kind == token.COMMENT {
			lines = comment
		} else if kind == token.SEMICOLON && literal == "\n" {
			continue // the line's end, which the scanner puts behind it
		}
		first := file.Line(at)
		for i := range strings.Count(literal, "\n") + 1 {
			lines[first+i] = true
		}
	}
	maps.DeleteFunc(comment, func(line int, _ bool) bool { return code[line] })
	return len(comment)
}

// methods counts the methods that each type of a package declares itself.
func methods(files []source) map[string]int {
	counts := map[string]int{}
	for _, f := range files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil {
				counts[receiver(fn)]++
			}
		}
	}
	return counts
}

// receiver names the type that a method belongs to.
func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if generic, ok := t.(*ast.IndexExpr); ok {
		t = generic.X
	}
	if name, ok := t.(*ast.Ident); ok {
		return name.Name
	}
	return "?"
}

// mutual lists the pairs of a package's files of which each uses functions or methods that the other declares, with an
// example of each.
func mutual(folder string, files []source) []string {
	uses := map[[2]string]string{} // from file to file: a name that is used
	for _, f := range files {
		for id, object := range f.uses {
			to := declaring(object, files)
			if way := [2]string{f.name, to}; to != "" && to != f.name && (uses[way] == "" || id.Name < uses[way]) {
				uses[way] = id.Name
			}
		}
	}
	var pairs []string
	for way, there := range uses {
		if back, ok := uses[[2]string{way[1], way[0]}]; ok && way[0] < way[1] {
			pairs = append(pairs, fmt.Sprintf("%s: %s (%s) ~ %s (%s)", folder, way[0], there, way[1], back))
		}
	}
	slices.Sort(pairs)
	return pairs
}

// declaring returns the file that declares a function or a method; empty for other objects, other packages' and the methods
// of interfaces, which stand for whoever implements them.
func declaring(object types.Object, files []source) string {
	fn, ok := object.(*types.Func)
	if !ok {
		return ""
	}
	if r := fn.Signature().Recv(); r != nil && types.IsInterface(r.Type()) {
		return ""
	}
	for _, f := range files {
		if f.syntax.FileStart <= fn.Pos() && fn.Pos() < f.syntax.FileEnd {
			return f.name
		}
	}
	return ""
}

// resolve finds out which names of a package stand for what the same package declares. Other packages are taken for empty:
// what follows from their types stays unknown, and the errors that this leads to say nothing.
func resolve(folder string, positions *token.FileSet, files []source) {
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	syntax := make([]*ast.File, len(files))
	for i, f := range files {
		syntax[i] = f.syntax
	}
	check := types.Config{Importer: nothing{}, Error: func(error) {}}
	_, _ = check.Check(folder, positions, syntax, info)
	for i := range files {
		files[i].uses = map[*ast.Ident]types.Object{}
		for id, object := range info.Uses {
			if files[i].syntax.FileStart <= id.Pos() && id.Pos() < files[i].syntax.FileEnd {
				files[i].uses[id] = object
			}
		}
	}
}

// nothing imports every package as an empty one.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, path[strings.LastIndex(path, "/")+1:])
	p.MarkComplete()
	return p, nil
}
