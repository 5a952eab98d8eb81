//! Inputs that a kernel reads as a texture: a device may load a texel faster than as many words of a buffer.
//! [`crate::ops::Argument::Texture`] says which, and shaders/shared/texel.wgsl where an element lies.

use super::Gpu;
use crate::error::{Error, Result};
use crate::ops::TEXELS;

/// Bytes of a texel: four f32.
const TEXEL_BYTES: u64 = 16;

pub(super) const ROW_BYTES: u64 = TEXELS as u64 * TEXEL_BYTES;

/// What is copied to a texture before a dispatch.
pub(super) struct TextureCopy {
    buffer: wgpu::Buffer,
    texture: wgpu::Texture,
    texels: u64,
}

impl TextureCopy {
    /// Of what is bound, to the first rows of `texture`.
    pub fn new(bound: &wgpu::BufferBinding<'_>, texture: &wgpu::Texture) -> Self {
        let bytes = bound.size.map_or(bound.buffer.size(), u64::from);
        Self { buffer: bound.buffer.clone(), texture: texture.clone(), texels: bytes / TEXEL_BYTES }
    }

    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let (rows, rest) = (self.texels / TEXELS as u64, self.texels % TEXELS as u64);
        let mut copy = |row: u64, width: u64, height: u64| {
            if width * height == 0 {
                return;
            }
            let layout = wgpu::TexelCopyBufferLayout {
                offset: row * ROW_BYTES,
                bytes_per_row: Some(ROW_BYTES as u32),
                rows_per_image: None,
            };
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo { buffer: &self.buffer, layout },
                wgpu::TexelCopyTextureInfo {
                    origin: wgpu::Origin3d { x: 0, y: row as u32, z: 0 },
                    ..self.texture.as_image_copy()
                },
                wgpu::Extent3d { width: width as u32, height: height as u32, depth_or_array_layers: 1 },
            );
        };
        copy(0, TEXELS as u64, rows);
        copy(rows, rest, 1);
    }
}

impl Gpu {
    pub(super) fn texture(&self, rows: usize) -> Result<wgpu::Texture> {
        let watch = super::Watch::open(&self.device, wgpu::ErrorFilter::OutOfMemory);
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("input"),
            size: wgpu::Extent3d { width: TEXELS as u32, height: rows as u32, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba32Float,
            usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        match watch.close() {
            Some(e) => {
                let mib = (rows as u64 * ROW_BYTES) >> 20;
                Err(Error::Limit(format!("{}: no memory for a texture of {mib} MiB: {e}", self.info.name)))
            }
            None => Ok(texture),
        }
    }
}
