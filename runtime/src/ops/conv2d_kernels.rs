//! The kernels of the forward convolution, for each way in which a weight may lie in memory.

use super::conv2d::Block;
use super::launch::{Kernel, Textured, textured};
use super::weight::WeightFormat;

/// One style of kernel each.
pub(super) struct Kernels {
    /// Any channels and groups.
    pub direct: Kernel,
    /// One group, channels in fours.
    pub tiled: Kernel,
    /// Subgroups of eight lanes, output channels in sixteens.
    pub lanes8: Kernel,
    pub lanes8_row3: Kernel,
    pub lanes8_thin: Kernel,
    /// Subgroups of eight lanes, output channels in fours; kernels of three by three, stride and dilation 1.
    pub lanes8_square3: Kernel,
    /// The same; stride 2.
    pub lanes8_square3_stride2: Kernel,
    /// Subgroups of eight lanes, at most four output channels.
    pub lanes8_narrow: Kernel,
    /// The same; kernels of three by three, stride and dilation 1.
    pub lanes8_narrow_square3: Kernel,
    /// Workgroup memory; one group, channels in fours.
    pub blocks: [Block; 5],
}

macro_rules! kernel {
    ($name:expr, $($source:ident),+) => {
        kernel!(64, $name, $($source),+)
    };
    ($workgroup:literal, $name:expr, $($source:ident),+) => {
        Kernel {
            name: $name,
            sources: &[
                adamant_shaders::INDEX,
                adamant_shaders::CONV_PARAMS,
                adamant_shaders::CONV_EPILOGUE,
                $(adamant_shaders::$source),+
            ],
            workgroup: $workgroup,
        }
    };
}

macro_rules! block {
    ($name:expr, $rows:literal, $columns:literal, $form:ident, $slices:ident, $workgroup:literal, $($weights:ident)+) => {
        Block {
            kernel: kernel!(
                $workgroup,
                $name,
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                $form,
                $slices,
                CONV_BLOCK,
                CONV_BLOCK_PIXELS,
                CONV2D_BLOCK
            ),
            rows: $rows,
            columns: $columns,
        }
    };
}

macro_rules! kernels {
    ($suffix:literal, [$($weight:ident)+], [$($weights:ident)+]) => {
        Kernels {
            direct: kernel!(concat!("conv2d", $suffix), CONV_EPILOGUE_BY_ONE, $($weight,)+ CONV2D),
            tiled: kernel!(
                concat!("conv2d_tiled", $suffix),
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                CONV2D_TILED
            ),
            lanes8: kernel!(
                concat!("conv2d_lanes8", $suffix),
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                ACCUMULATE4,
                CONV_LANES8,
                FOUR,
                X_BUFFER,
                CONV2D_LANES8
            ),
            lanes8_row3: kernel!(
                concat!("conv2d_lanes8_row3", $suffix),
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                ACCUMULATE4,
                CONV_LANES8,
                CONV2D_LANES8_ROW3
            ),
            lanes8_thin: kernel!(
                concat!("conv2d_lanes8_thin", $suffix),
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                ACCUMULATE4,
                CONV_LANES8,
                CONV2D_LANES8_THIN
            ),
            lanes8_square3: kernel!(
                concat!("conv2d_lanes8_square3", $suffix),
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                ACCUMULATE4,
                CONV_SQUARES3,
                SQUARES3_STRIDE_1,
                FOUR,
                X_BUFFER,
                CONV2D_LANES8_SQUARE3
            ),
            lanes8_square3_stride2: kernel!(
                concat!("conv2d_lanes8_square3_stride2", $suffix),
                CONV_EPILOGUE_BY_FOUR,
                EPILOGUE_BUFFERS,
                $($weights,)+
                ACCUMULATE4,
                CONV_SQUARES3,
                SQUARES3_STRIDE_2,
                FOUR,
                X_BUFFER,
                CONV2D_LANES8_SQUARE3
            ),
            lanes8_narrow: kernel!(
                concat!("conv2d_lanes8_narrow", $suffix),
                CONV_EPILOGUE_BY_ONE,
                $($weight,)+
                ACCUMULATE4,
                CONV_NARROW,
                CONV2D_LANES8_NARROW
            ),
            lanes8_narrow_square3: kernel!(
                concat!("conv2d_lanes8_narrow_square3", $suffix),
                CONV_EPILOGUE_BY_ONE,
                $($weight,)+
                ACCUMULATE4,
                CONV_SQUARES3,
                SQUARES3_STRIDE_1,
                CONV_NARROW,
                FOUR,
                X_BUFFER,
                CONV2D_LANES8_NARROW_SQUARE3
            ),
            blocks: [
                block!(concat!("conv2d_block_64x64", $suffix), 64, 64, BLOCK_64X64, SLICES_1, 64, $($weights)+),
                block!(concat!("conv2d_block_128x32", $suffix), 128, 32, BLOCK_128X32, SLICES_1, 64, $($weights)+),
                block!(concat!("conv2d_block_256x16", $suffix), 256, 16, BLOCK_256X16, SLICES_1, 64, $($weights)+),
                block!(
                    concat!("conv2d_block_128x32_ahead", $suffix),
                    128,
                    32,
                    BLOCK_128X32,
                    SLICES_1_AHEAD,
                    64,
                    $($weights)+
                ),
                block!(concat!("conv2d_block_64x64x4", $suffix), 64, 64, BLOCK_64X64, SLICES_4, 256, $($weights)+),
            ],
        }
    };
}

macro_rules! from_textures {
    ($name:literal, $($source:ident),+) => {
        textured!(
            $name,
            &[0, 1, 3, 4],
            CONV_PARAMS,
            CONV_EPILOGUE,
            CONV_EPILOGUE_BY_FOUR,
            EPILOGUE_TEXTURES,
            X_TEXTURE,
            WEIGHTS_TEXTURE,
            SUMS,
            ACCUMULATE4,
            $($source),+
        )
    };
}

/// Those for weights in f32 that read x, and where they take channels in fours all that is large, from textures.
pub(super) const TEXTURED: [Textured; 4] = [
    from_textures!("conv2d_lanes8", CONV_LANES8, CONV2D_LANES8),
    from_textures!("conv2d_lanes8_square3", CONV_SQUARES3, SQUARES3_STRIDE_1, CONV2D_LANES8_SQUARE3),
    from_textures!("conv2d_lanes8_square3_stride2", CONV_SQUARES3, SQUARES3_STRIDE_2, CONV2D_LANES8_SQUARE3),
    textured!(
        "conv2d_lanes8_narrow_square3",
        &[0],
        CONV_PARAMS,
        CONV_EPILOGUE,
        CONV_EPILOGUE_BY_ONE,
        X_TEXTURE,
        WEIGHT_F32,
        SUM,
        ACCUMULATE4,
        CONV_SQUARES3,
        SQUARES3_STRIDE_1,
        CONV_NARROW,
        CONV2D_LANES8_NARROW_SQUARE3,
    ),
];

const F32: Kernels = kernels!("", [WEIGHT_F32 SUM], [WEIGHTS_F32 SUMS]);
const F16: Kernels = kernels!("_f16", [WEIGHT_F16 SUM], [WEIGHTS_F16 SUMS]);
const INT8: Kernels = kernels!("_int8", [WEIGHT_INT8], [WEIGHTS_INT8]);

impl Kernels {
    pub(super) const fn of(format: WeightFormat) -> &'static Self {
        match format {
            WeightFormat::F32 => &F32,
            WeightFormat::F16 => &F16,
            WeightFormat::Int8 => &INT8,
        }
    }
}
