package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Nothing that a peer asks for may have an image built: in the node one function of
// the local API knows the builder, and no other package but the driver does.
func TestNoRequestBuilds(t *testing.T) {
	found := 0
	for _, s := range load(t) {
		files, err := filepath.Glob(filepath.Join("../..", s.dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") || strings.HasPrefix(s.dir, "pkg/driver") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				fn, isFunc := d.(*ast.FuncDecl)
				ast.Inspect(d, func(n ast.Node) bool {
					sel, ok := n.(*ast.SelectorExpr)
					if !ok || sel.Sel.Name != "Builder" && sel.Sel.Name != "BuildImage" {
						return true
					}
					if x, ok := sel.X.(*ast.Ident); sel.Sel.Name == "Builder" && (!ok || x.Name != "driver") {
						return true // another Builder
					}
					found++
					may := s.dir == "pkg/control" || isFunc && s.dir == "pkg/node" && fn.Name.Name == "BuildImage" && fn.Recv != nil
					if !may {
						t.Errorf("%s reaches a builder", f)
					}
					return true
				})
			}
		}
	}
	if found < 3 {
		t.Fatalf("found %d uses of a builder; is the test looking for the right names?", found)
	}
}
