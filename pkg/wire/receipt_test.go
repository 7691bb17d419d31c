package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func of(b byte) Digest { return Digest(bytes.Repeat([]byte{b}, 32)) }

func goodReceipt(t testing.TB) Receipt {
	_, idA := testKey(t, 1)
	_, idB := testKey(t, 2)
	return Receipt{
		Version: 1, Runner: idB, Asker: idA, Request: of(0x44), Job: mesh.NewWorkloadID(of(0x44)),
		Module: of(0x66), Spec: of(0x77), Seed: of(0x88), Input: of(0x99), InputSize: 3, Whole: true,
		Output: of(0xcc), OutputSize: 1000, Log: of(0xee), Record: of(0x10), Code: 7,
		Fuel: 123456789, Schedule: "fuel/1", PeakMemory: 65536, Caps: []string{"clock:virtual"},
		Started: 1767225600000, Ended: 1767225601000,
	}
}

func TestReceiptVectors(t *testing.T) {
	keyB, _ := testKey(t, 2)
	vectors := vectorsOf(t, "testdata/receipts.txt")
	if len(vectors) < 15 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		r, err := OpenReceipt(v.data)
		if v.want == "ok" {
			if err != nil {
				t.Errorf("%s: %v", v.name, err)
				continue
			}
			want := goodReceipt(t)
			if !reflect.DeepEqual(*r, want) {
				t.Errorf("%s: opened as\n%+v, want\n%+v", v.name, *r, want)
			}
			if again, err := SealReceipt(keyB, want); err != nil || !bytes.Equal(again, v.data) {
				t.Errorf("%s: sealing the same receipt gives other bytes (%v):\n%x\n%x", v.name, err, again, v.data)
			}
			continue
		}
		kind, rule, _ := strings.Cut(v.want, " ")
		if e := mesh.AsError(err); e == nil || e.Kind.String() != kind || e.Rule != rule {
			t.Errorf("%s: got %v, want %s by rule %s", v.name, err, kind, rule)
		}
	}
}

// Not one bit of a receipt can be changed, and no two receipts have one encoding.
func TestReceiptIsProtected(t *testing.T) {
	key, _ := testKey(t, 2)
	good, err := SealReceipt(key, goodReceipt(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenReceipt(bad); err == nil {
			t.Fatalf("bit %d flipped and accepted", i)
		}
	}
	base, err := Marshal(goodReceipt(t))
	if err != nil {
		t.Fatal(err)
	}
	for f := range reflect.TypeFor[Receipt]().Fields() {
		r := goodReceipt(t)
		v := reflect.ValueOf(&r).Elem().FieldByIndex(f.Index)
		switch v.Kind() {
		case reflect.Int64, reflect.Int:
			v.SetInt(v.Int() + 1)
		case reflect.Uint, reflect.Uint16, reflect.Uint64:
			v.SetUint(v.Uint() + 1)
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Array:
			v.Index(0).SetUint(v.Index(0).Uint() ^ 1)
		case reflect.Slice:
			v.Set(reflect.Append(v, reflect.ValueOf("x")))
		default:
			t.Fatalf("field %s has a kind this test does not know: %s", f.Name, v.Kind())
		}
		if other, err := Marshal(r); err != nil || bytes.Equal(other, base) {
			t.Errorf("%s is not part of what is signed (%v)", f.Name, err)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := of(0xab)
	got, err := ParseDigest(d.String())
	if err != nil || got != d {
		t.Errorf("%s is read as %s (%v)", d, got, err)
	}
	for _, bad := range []string{"", "sha256:", strings.ToUpper(d.String()), d.String()[:70], "sha512" + d.String()[6:]} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}

func FuzzOpenReceipt(f *testing.F) {
	for _, v := range vectorsOf(f, "testdata/receipts.txt") {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := OpenReceipt(data)
		if err != nil {
			return
		}
		if _, err := Marshal(r); err != nil {
			t.Fatalf("opened, but does not encode: %v", err)
		}
	})
}
