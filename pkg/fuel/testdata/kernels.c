// The kernels of BenchmarkMetering. Built by:
//   clang --target=wasm32 -O2 -nostdlib -mbulk-memory -Wl,--no-entry -Wl,--export-dynamic -fvisibility=hidden -o kernels.wasm kernels.c
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL __attribute__((visibility("default")))
#define OUTLINE __attribute__((noinline))

KERNEL u32 tight(u32 n) {
	u32 x = n;
	for (u32 i = 0; i < n * 1000; i++) {
		x = x * 1664525 + 1013904223;
		x ^= x >> 7;
	}
	return x;
}

static OUTLINE u32 fib_(u32 n) { return n < 2 ? n : fib_(n - 1) + fib_(n - 2); }
KERNEL u32 fib(u32 n) { return fib_(n); }

static double ma[64][64], mb[64][64], mc[64][64];
KERNEL u32 matmul(u32 n) {
	for (int i = 0; i < 64; i++)
		for (int j = 0; j < 64; j++) ma[i][j] = i + j, mb[i][j] = i - j;
	for (u32 r = 0; r < n; r++)
		for (int i = 0; i < 64; i++)
			for (int j = 0; j < 64; j++) {
				double s = 0;
				for (int k = 0; k < 64; k++) s += ma[i][k] * mb[k][j];
				mc[i][j] = s;
			}
	return (u32)(int)mc[5][7];
}

static u8 composite[1 << 16];
KERNEL u32 sieve(u32 n) {
	u32 count = 0;
	for (u32 r = 0; r < n; r++) {
		count = 0;
		for (u32 i = 0; i < sizeof composite; i++) composite[i] = 0;
		for (u32 i = 2; i < sizeof composite; i++) {
			if (composite[i]) continue;
			count++;
			for (u32 j = i * 2; j < sizeof composite; j += i) composite[j] = 1;
		}
	}
	return count;
}

KERNEL u32 collatz(u32 n) {
	u32 best = 0;
	for (u32 i = 1; i < n * 100; i++) {
		u64 x = i;
		u32 steps = 0;
		while (x != 1) {
			if (x & 1)
				x = 3 * x + 1;
			else
				x >>= 1;
			steps++;
		}
		if (steps > best) best = steps;
	}
	return best;
}

static const u32 K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74,
	0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d,
	0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e,
	0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5,
	0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
static void compress(u32 h[8], const u8 *p) {
	u32 w[64];
	for (int i = 0; i < 16; i++) w[i] = (u32)p[i * 4] << 24 | p[i * 4 + 1] << 16 | p[i * 4 + 2] << 8 | p[i * 4 + 3];
	for (int i = 16; i < 64; i++) {
		u32 a = ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3, b = ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10;
		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
	u32 s[8];
	for (int i = 0; i < 8; i++) s[i] = h[i];
	for (int i = 0; i < 64; i++) {
		u32 t1 = s[7] + (ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
		u32 t2 = (ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
		s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1, s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++) h[i] += s[i];
}
KERNEL u32 sha256(u32 n) {
	u32 h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	for (u32 i = 0; i < n * 10; i++) compress(h, composite + (i & 1023) * 64);
	return h[0];
}

static OUTLINE u32 mix(u32 a, u32 b) { return (a ^ b) * 2654435761u + (a >> 3); }
static OUTLINE u32 pick(u32 a, u32 b) { return a > b ? a - b : b - a; }
KERNEL u32 leaf(u32 n) {
	u32 x = 1;
	for (u32 i = 0; i < n * 1000; i++) x = mix(x, i) + pick(x, i);
	return x;
}

typedef u32 (*op)(u32, u32);
static OUTLINE u32 add(u32 a, u32 b) { return a + b; }
static OUTLINE u32 sub(u32 a, u32 b) { return a - b; }
static OUTLINE u32 mul(u32 a, u32 b) { return a * b; }
static OUTLINE u32 xor(u32 a, u32 b) { return a ^ b; }
static const volatile op ops[4] = {add, sub, mul, xor};
KERNEL u32 indirect(u32 n) {
	u32 x = 1;
	for (u32 i = 0; i < n * 1000; i++) x = ops[i & 3](x, i);
	return x;
}

static u8 program[64];
KERNEL u32 interpreter(u32 n) {
	for (int i = 0; i < 63; i++) program[i] = (i * 37 + 11) % 9;
	program[63] = 9;
	u32 acc = 1, x = 3, y = 5, pc = 0, left = n * 10;
	for (;;) switch (program[pc++]) {
		case 0: acc += x; break;
		case 1: acc ^= y; break;
		case 2: x = acc * 3; break;
		case 3: y = acc - x; break;
		case 4: acc = acc << 3 | acc >> 29; break;
		case 5: if (acc & 1) pc++; break;
		case 6: x += y; break;
		case 7: y ^= x >> 5; break;
		case 8: acc -= 7; break;
		default: if (!left--) return acc; pc = 0;
	}
}

static u32 keys[4096];
static OUTLINE int ascending(const void *a, const void *b) { u32 x = *(const u32 *)a, y = *(const u32 *)b; return x < y ? -1 : x > y; }
typedef int (*compare)(const void *, const void *);
static OUTLINE void sort(u32 *a, int n, compare less) {
	while (n > 8) {
		u32 pivot = a[n / 2];
		int i = 0, j = n - 1;
		for (;;) {
			while (less(&a[i], &pivot) < 0) i++;
			while (less(&pivot, &a[j]) < 0) j--;
			if (i >= j) break;
			u32 t = a[i]; a[i] = a[j]; a[j] = t;
			i++, j--;
		}
		sort(a, i, less);
		a += i, n -= i;
	}
	for (int i = 1; i < n; i++)
		for (int j = i; j > 0 && less(&a[j], &a[j - 1]) < 0; j--) { u32 t = a[j]; a[j] = a[j - 1]; a[j - 1] = t; }
}
static const volatile compare order = ascending;
KERNEL u32 quicksort(u32 n) {
	u32 seed = 1;
	for (u32 r = 0; r < n; r++) {
		for (int i = 0; i < 4096; i++) keys[i] = seed = seed * 1664525 + 1013904223;
		sort(keys, 4096, order);
	}
	return keys[2048];
}

static OUTLINE u32 length(const u8 *s) { const u8 *p = s; while (*p) p++; return p - s; }
KERNEL u32 string(u32 n) {
	for (u32 i = 0; i < sizeof composite; i++) composite[i] = i % 97 ? 'x' : 0;
	u32 total = 0;
	for (u32 r = 0; r < n; r++)
		for (u32 i = 1; i < 60000; i += 97) total += length(composite + i);
	return total;
}

KERNEL u32 early(u32 n) {
	u32 found = 0;
	for (u32 r = 0; r < n * 100; r++)
		for (u32 i = 0; i < 256; i++) {
			u32 v = (r * 2654435761u ^ i * 40503u) & 1023;
			if (v == 7) { found++; break; }
			if (v == 500 && (i & 1)) { found += 2; break; }
			if (v == 900) continue;
			found ^= v;
		}
	return found;
}
