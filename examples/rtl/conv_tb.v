// Runs the layer on its vectors, and compares each output. Parameters are set by run.py.
module conv_tb;
    parameter N = 1, C = 1, H = 1, W = 1, O = 1, OH = 1, OW = 1, GROUPS = 1, KH = 1, KW = 1;
    parameter SY = 1, SX = 1, PY = 0, PX = 0, DY = 1, DX = 1;
    parameter IN_BITS = 8, IN_SIGNED = 0, WEIGHT_BITS = 8, BIAS_BITS = 32, MULTIPLIER_BITS = 16;
    parameter OUT_BITS = 8, LOW = 0, HIGH = 255, HALF_EVEN = 0, ACC_BITS = 48, OVERFLOW = 0;
    parameter INPUT = "", WEIGHT = "", BIAS = "", MULTIPLIER = "", SHIFT = "", OUTPUT = "";

    reg clock = 0, reset = 1;
    wire valid, done;
    wire [OUT_BITS-1:0] code;
    reg [OUT_BITS-1:0] expected [0:N*O*OH*OW-1];
    integer count = 0, wrong = 0;

    conv #(
        .N(N), .C(C), .H(H), .W(W), .O(O), .OH(OH), .OW(OW), .GROUPS(GROUPS), .KH(KH), .KW(KW),
        .SY(SY), .SX(SX), .PY(PY), .PX(PX), .DY(DY), .DX(DX),
        .IN_BITS(IN_BITS), .IN_SIGNED(IN_SIGNED), .WEIGHT_BITS(WEIGHT_BITS), .BIAS_BITS(BIAS_BITS),
        .MULTIPLIER_BITS(MULTIPLIER_BITS), .OUT_BITS(OUT_BITS), .LOW(LOW), .HIGH(HIGH),
        .HALF_EVEN(HALF_EVEN), .ACC_BITS(ACC_BITS), .OVERFLOW(OVERFLOW),
        .INPUT(INPUT), .WEIGHT(WEIGHT), .BIAS(BIAS), .MULTIPLIER(MULTIPLIER), .SHIFT(SHIFT)
    ) layer (.clock(clock), .reset(reset), .valid(valid), .code(code), .done(done));

    initial $readmemh(OUTPUT, expected);
    always #1 clock = !clock;

    always @(negedge clock) begin
        reset <= 0;
        if (valid) begin
            if (code !== expected[count]) begin
                wrong = wrong + 1;
            end
            count = count + 1;
        end
        if (done && !reset) begin
            if (wrong || count != N * O * OH * OW)
                $display("FAIL: %0d of %0d codes differ", wrong, count);
            else
                $display("PASS: %0d codes", count);
            $finish;
        end
    end
endmodule
