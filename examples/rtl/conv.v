// A convolution layer of docs/arithmetic.md: one product a clock, then bias, accumulator, rescaling
// with one rounding, and limits. Memories are loaded with $readmemh, from files of
// `quantisp export --format vectors`.
module conv #(
    parameter N = 1,                            // pictures
    parameter C = 1, H = 1, W = 1,              // of the input
    parameter O = 1, OH = 1, OW = 1,            // of the output
    parameter GROUPS = 1, KH = 1, KW = 1,
    parameter SY = 1, SX = 1, PY = 0, PX = 0, DY = 1, DX = 1,
    parameter IN_BITS = 8, IN_SIGNED = 0, WEIGHT_BITS = 8, BIAS_BITS = 32, MULTIPLIER_BITS = 16,
    parameter OUT_BITS = 8, LOW = 0, HIGH = 255,
    parameter HALF_EVEN = 0,
    parameter ACC_BITS = 48,
    parameter OVERFLOW = 0,                     // 0: all sums fit; 1: wrap; 2: clamp
    parameter INPUT = "", WEIGHT = "", BIAS = "", MULTIPLIER = "", SHIFT = ""
) (
    input  wire                clock,
    input  wire                reset,
    output reg                 valid,
    output reg [OUT_BITS-1:0]  code,
    output reg                 done
);
    localparam CG = C / GROUPS, OG = O / GROUPS;
    localparam signed [63:0] ACC_HIGH = (64'sd1 <<< (ACC_BITS - 1)) - 1;
    localparam signed [63:0] ACC_LOW = -(64'sd1 <<< (ACC_BITS - 1));

    reg [IN_BITS-1:0]         in     [0:N*C*H*W-1];
    reg signed [WEIGHT_BITS-1:0] weight [0:O*CG*KH*KW-1];
    reg signed [BIAS_BITS-1:0]   bias   [0:O-1];
    reg [MULTIPLIER_BITS-1:0] multiplier [0:O-1];
    reg [5:0]                 shift  [0:O-1];

    initial begin
        $readmemh(INPUT, in);
        $readmemh(WEIGHT, weight);
        $readmemh(BIAS, bias);
        $readmemh(MULTIPLIER, multiplier);
        $readmemh(SHIFT, shift);
    end

    integer n, o, y, x, i, ky, kx;              // where we are: the last ones run fastest
    integer row, column;
    reg signed [IN_BITS:0]    given;
    reg signed [63:0]         acc, sum;
    reg signed [95:0]         scaled, half, rounded;

    task next;                                  // the next output, in the order of the files
        begin
            x = x + 1;
            if (x == OW) begin x = 0; y = y + 1; end
            if (y == OH) begin y = 0; o = o + 1; end
            if (o == O) begin o = 0; n = n + 1; end
        end
    endtask

    always @(posedge clock) begin
        valid <= 0;
        if (reset) begin
            n = 0; o = 0; y = 0; x = 0; i = 0; ky = 0; kx = 0;
            acc = 0;
            done <= 0;
        end else if (!done) begin
            row = y * SY - PY + ky * DY;
            column = x * SX - PX + kx * DX;
            if (row >= 0 && row < H && column >= 0 && column < W) begin
                given = in[((n * C + o / OG * CG + i) * H + row) * W + column];
                if (IN_SIGNED) given[IN_BITS] = given[IN_BITS-1];
                acc = acc + given * weight[((o * CG + i) * KH + ky) * KW + kx];
            end
            kx = kx + 1;
            if (kx == KW) begin kx = 0; ky = ky + 1; end
            if (ky == KH) begin ky = 0; i = i + 1; end
            if (i == CG) begin
                i = 0;
                sum = acc + bias[o];
                acc = 0;
                if (OVERFLOW == 1) sum = (sum <<< (64 - ACC_BITS)) >>> (64 - ACC_BITS);
                if (OVERFLOW == 2 && sum > ACC_HIGH) sum = ACC_HIGH;
                if (OVERFLOW == 2 && sum < ACC_LOW) sum = ACC_LOW;
                scaled = sum * $signed({1'b0, multiplier[o]});
                half = 96'sd1 <<< (shift[o] - 6'd1);
                rounded = (scaled + half) >>> shift[o];
                // In the middle, and odd.
                if (HALF_EVEN && (rounded <<< shift[o]) == scaled + half && rounded[0])
                    rounded = rounded - 1;
                if (rounded < LOW) rounded = LOW;
                if (rounded > HIGH) rounded = HIGH;
                code <= rounded[OUT_BITS-1:0];
                valid <= 1;
                next;
                if (n == N) done <= 1;
            end
        end
    end
endmodule
